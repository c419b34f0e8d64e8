"""A network's own predictions, accepted as they were, are recognised when it is scored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from ml_backend.domain import Image, Priority, SegmentationOptions
from ml_backend.engines.catalogue import resolve_component
from ml_backend.engines.cellpose import open_segmenter
from ml_backend.labelstudio.results import build_result
from ml_backend.training.scoring import score
from ml_backend.training.taught_objects import taught_objects
from tests.annotations_of import annotated, config_of, target_of
from tests.shared_data import SHARED, needs_data

pytestmark = pytest.mark.unhurried


@needs_data
@pytest.mark.parametrize("tag", ["PolygonLabels", "BrushLabels"])
def test_accepted_predictions_would_score_one_and_are_recognised(tag: str) -> None:
    path = min(
        (SHARED / "dsb2018_fluo" / "images").glob("*.png"), key=lambda one: one.stat().st_size
    )
    with Picture.open(path) as picture:
        pixels = np.asarray(picture.convert("L"))[:256, :256, None]
    image = Image(pixels=pixels, sha256="nuclei")
    config = config_of(tag)
    component = resolve_component("nuclei-1", models_dir=SHARED, cuda=False)
    with open_segmenter(torch.device("cpu")) as segmenter:
        own = segmenter.segment(
            image, SegmentationOptions(), component=component, priority=Priority.BATCH
        )
        result = build_result({control.name: own for control in config.controls}, config)
        regions = [{**region, "origin": "prediction"} for region in result.regions]
        taught = taught_objects(regions, target_of(config), *pixels.shape[:2])
        accepted = replace(annotated(taught.labels), image=image, untouched=taught.untouched)
        (found,) = score(segmenter, component, [accepted], SegmentationOptions())

    assert len(own.scores) > 5
    assert found.accepted
    assert found.ap50 == pytest.approx(1.0, abs=0.1)
