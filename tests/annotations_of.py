"""Annotations for tests, written as the browser would send them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ml_backend.domain import Image, LabelConfig, LabelImage, Segmentation
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.labelstudio.results import build_result
from ml_backend.labelstudio.targets import Target, targets_of
from ml_backend.learning import Side
from ml_backend.training.annotated_image import AnnotatedImage, Area

POLYGONS = (
    '<View><Image name="img" value="$image"/>'
    '<PolygonLabels name="cells" toName="img" model_label="Cell"><Label value="Cell"/>'
    '<Label value="Debris"/>'
    "</PolygonLabels></View>"
)


def config_of(*tags: str, options: str = 'model_label="Cell"') -> LabelConfig:
    """Return a config in which each tag, e.g. `BrushLabels`, is a control of the same image."""
    controls = "".join(
        f'<{tag} name="{tag.lower()}" toName="img" {options}><Label value="Cell"/>'
        f'<Label value="Debris"/></{tag}>'
        for tag in tags
    )
    return parse_label_config(f'<View><Image name="img" value="$image"/>{controls}</View>')


def target_of(config: LabelConfig | None = None) -> Target:
    """Return the one target of a config."""
    targets = targets_of(config or parse_label_config(POLYGONS))
    (target,) = [target for target in targets if isinstance(target, Target)]
    return target


def regions_of(
    labels: LabelImage, config: LabelConfig | None = None, *, origin: str = "manual"
) -> list[dict[str, Any]]:
    """Return the regions that draw `labels` with every control of a config."""
    config = config or parse_label_config(POLYGONS)
    count = int(labels.max(initial=0))
    drawn = Segmentation(labels=labels, scores=np.ones(count, np.float32), diameter=10.0)
    result = build_result({control.name: drawn for control in config.controls}, config)
    return [{**region, "origin": origin} for region in result.regions]


def rectangle(x: float, y: float, width: float, height: float, label: str) -> dict[str, Any]:
    """Return a rectangle of a control that is left to people; percent."""
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0}
    return {
        "id": f"roi-{x}-{y}",
        "from_name": "areas",
        "to_name": "img",
        "type": "rectanglelabels",
        "value": {**value, "rectanglelabels": [label]},
        "origin": "manual",
    }


def squares(*corners: tuple[int, int], size: int = 10, side: int = 100) -> LabelImage:
    """Return a frame of side x side pixels with squares at (row, column)."""
    labels = np.zeros((side, side), np.int32)
    for number, (row, column) in enumerate(corners, start=1):
        labels[row : row + size, column : column + size] = number
    return labels


def annotated(
    labels: LabelImage,
    *,
    task_id: int = 1,
    finished: Area | None = None,
    side: Side = Side.HOLD_OUT,
    untouched: bool = False,
    accepted_from: frozenset[str] = frozenset(),
) -> AnnotatedImage:
    """Return an image with these objects."""
    pixels = np.zeros((*labels.shape, 1), np.uint8)
    return AnnotatedImage(
        task_id=task_id,
        annotation_ids=(task_id * 10,),
        group=f"group {task_id}",
        side=side,
        image=Image(pixels=pixels, sha256=f"image {task_id}"),
        labels=labels,
        finished=finished,
        untouched=untouched,
        accepted_from=accepted_from,
    )
