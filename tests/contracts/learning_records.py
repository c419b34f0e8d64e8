"""What the contracts of the learning loop's records share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_backend.domain import Component, ProjectKey
from ml_backend.learning import Annotation, LabelledTask

PROJECT = ProjectKey(origin="http://ls.example:8080/labels", project_id=7, created_at=1_795_215_681)
OTHER_PROJECT = ProjectKey(origin="http://other.example", project_id=7, created_at=1_795_215_681)


def region(number: int, **more: Any) -> dict[str, Any]:
    """Return a region of a result."""
    value = {"x": number, "y": 2.5, "width": 10, "height": 10, "rectanglelabels": ["Cell"]}
    return {"id": f"r{number}", "from_name": "cells", "to_name": "image", "value": value, **more}


def annotation(number: int, updated_at: float, *drawn: int, **more: Any) -> Annotation:
    """Return an annotation of task `number // 10` with regions of these numbers."""
    fields: dict[str, Any] = {
        "task_id": number // 10,
        "annotation_id": number,
        "updated_at": updated_at,
        "result": [region(one) for one in drawn],
    }
    return Annotation(**{**fields, **more})


def task(task_id: int, data: Mapping[str, Any] | None = None) -> LabelledTask:
    """Return a task."""
    return LabelledTask(task_id=task_id, data=data or {"image": f"/data/{task_id}.png"})


def component(name: str, **more: Any) -> Component:
    """Return a network of that name."""
    fields: dict[str, Any] = {
        "name": name,
        "architecture": "residual-unet",
        "sha256": name.encode().hex().ljust(64, "0")[:64],
        "path": f"/models/{name}.safetensors",
        "licence": "CC0-1.0",
    }
    return Component(**{**fields, **more})
