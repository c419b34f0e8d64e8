"""What an annotation says of the choices of an image, or of the single objects in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ml_backend.domain import ChoicesControl, Control, Image, LabelImage
from ml_backend.labelstudio.annotations import from_regions
from ml_backend.labelstudio.choices import read_chosen
from ml_backend.learning import Annotation

Chosen = Mapping[str, frozenset[str]]
"""Control name -> what was chosen; a control that was left alone is not in it."""


@dataclass(frozen=True, kw_only=True)
class ChosenForImage:
    """What was chosen for a whole image."""

    chosen: Chosen
    gone: tuple[str, ...]  # a sentence for each choice that the label config no longer has


@dataclass(frozen=True, kw_only=True)
class ChosenForObjects:
    """The objects of an annotation, and what was chosen for those that have choices."""

    labels: LabelImage
    by_number: Mapping[int, Chosen]


def chosen_for_image(annotation: Annotation, controls: Sequence[ChoicesControl]) -> ChosenForImage:
    """Return what an annotation chose, without what the label config no longer has.

    Raises:
        BadRequest: it cannot be read; the text says why.
    """
    found: dict[str, frozenset[str]] = {}
    said = []
    for control in controls:
        chosen = read_chosen(annotation.result, control)
        gone = chosen - set(control.choices)
        if gone:
            said.append(
                f"Annotation {annotation.annotation_id} of task {annotation.task_id}: "
                f"{control.name} no longer has the choice {', '.join(sorted(gone))}; it does not "
                "count."
            )
        if chosen - gone:
            found[control.name] = chosen - gone
    return ChosenForImage(chosen=found, gone=tuple(said))


def chosen_for_objects(
    annotation: Annotation,
    shape: Control,
    controls: Sequence[ChoicesControl],
    image: Image,
) -> ChosenForObjects:
    """Return what an annotation says of the single objects that `shape` outlines.

    Raises:
        BadRequest: it cannot be read; the text says why.
    """
    read = from_regions(annotation.result, shape, image.height, image.width)
    by_number: dict[int, Chosen] = {}
    for number, (label, region_id) in enumerate(
        zip(read.label_names, read.region_ids, strict=True), start=1
    ):
        own = [region for region in annotation.result if region.get("id") == region_id]
        chosen = {
            control.name: (
                frozenset({label}) if control.is_label else read_chosen(own, control)
            ).intersection(control.choices)
            for control in controls
        }
        used = {name: choices for name, choices in chosen.items() if choices}
        if used:
            by_number[number] = used
    return ChosenForObjects(labels=read.labels, by_number=by_number)


def outlines_anything(annotation: Annotation, shape: Control) -> bool:
    """Return whether an annotation has regions of `shape`."""
    return any(region.get("from_name") == shape.name for region in annotation.result)
