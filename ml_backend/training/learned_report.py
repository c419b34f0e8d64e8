"""What was learned of one control, in words and numbers for people."""

from __future__ import annotations

from typing import Any

from ml_backend.engines.classifier import ControlModel
from ml_backend.engines.head_models import Kind


def kind_of(model: ControlModel) -> str:
    """Return the name of what answers for a control, for a version's name."""
    return str((Kind.CLUSTERS if model.head is None else model.head.kind).value)


def learned_report(model: ControlModel) -> dict[str, Any]:
    """Return what a report says of a candidate, JSON-able."""
    head = model.head
    clusters = {
        str(identity): {
            "choices": list(name.choices),
            "support": name.support,
            "purity": round(name.purity, 4),
        }
        for identity, name in model.cluster_names.items()
    }
    learned: dict[str, Any] = {
        "clusters": 0 if model.clustering is None else len(model.clustering),
        "named_clusters": clusters,
    }
    if head is None:
        return {**learned, "head": None}
    return {
        **learned,
        "head": head.kind.value,
        "metric": head.report.metric,
        "cross_validated": {kind.value: score for kind, score in head.report.scores.items()},
        "images": head.report.items,
        "of_each_choice": dict(head.report.items_per_class),
        "calibration_error_before": head.report.calibration_error_before,
        "calibration_error": head.report.calibration_error_after,
        "remarks": list(head.report.remarks),
    }
