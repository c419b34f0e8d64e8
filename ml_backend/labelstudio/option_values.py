"""From the values of `model_*` attributes to the options of predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_backend.domain import ClassificationOptions, ControlTag, SegmentationOptions

POINTS = frozenset({ControlTag.KEYPOINT, ControlTag.KEYPOINT_LABELS})
"""Tags whose regions say nothing of an object's outline."""


def segmentation_options(values: Mapping[str, Any]) -> SegmentationOptions:
    """Return the options for masks."""
    names = {
        "model": "model_name",
        "diameter": "model_diameter",
        "flow_threshold": "model_flow_threshold",
        "cellprob_threshold": "model_cellprob_threshold",
        "iterations": "model_iterations",
        "min_size": "model_min_size",
        "clahe": "model_clahe",
        "plane": "model_plane",
        "channels": "model_channels",
    }
    given = {ours: values[name] for ours, name in names.items() if name in values}
    return SegmentationOptions(**given)


def classes_of(
    tag: ControlTag, labels: tuple[str, ...], values: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return the labels that are to be told apart, none where all objects get the same."""
    found = tuple(label for label in labels if label != values.get("model_roi"))
    wanted = values.get("model_classes", True) and "model_label" not in values
    return found if wanted and len(found) > 1 and tag not in POINTS else ()


def classification_options(values: Mapping[str, Any]) -> ClassificationOptions:
    """Return the options for classes."""
    names = {
        "embedder": "model_embedder",
        "plane": "model_plane",
        "channels": "model_channels",
        "unsure_below": "model_unsure_below",
        "clusters": "model_clusters",
    }
    given = {ours: values[name] for ours, name in names.items() if name in values}
    return ClassificationOptions(**given)
