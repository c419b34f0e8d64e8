"""Models as JSON, and how OpenAPI describes them."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from ml_backend.service.models_listed import Model, ModelKind
from ml_backend.web.api.routing import API_PREFIX, json_body
from ml_backend.web.api.shapes import PROJECT_SCHEMA, moment_json, project_json


def model_json(model: Model) -> dict[str, Any]:
    """Return a model without the path of its file, which is nobody's business."""
    return {
        "name": model.name,
        "kind": model.kind,
        "licence": model.licence,
        "architecture": model.architecture,
        "sha256": model.sha256,
        "diameter": model.diameter,
        "project": None if model.project is None else project_json(model.project),
        "dataset": model.dataset,
        "session": model.session,
        "parent": model.parent,
        "lineage": list(model.lineage),
        "metrics": dict(model.metrics),
        "controls": list(model.controls),
        "serves": [
            {"project": str(served.project), "control": served.control} for served in model.serves
        ],
        "state": model.state,
        "created_at": moment_json(model.created_at),
        "url": model_url(model),
        "message": model.message,
        "available": model.available,
    }


def model_url(model: Model) -> str:
    """Return the path under which a model is described."""
    path = f"{API_PREFIX}/models/{quote(model.name, safe='')}"
    if model.namesake and model.owner is not None:
        return f"{path}?{urlencode({'project': str(model.owner)})}"
    return path


_TEXT, _TEXT_OR_NULL = {"type": "string"}, {"type": ["string", "null"]}
_TEXTS = {"type": "array", "items": _TEXT}
_PROJECT = {
    "type": ["string", "integer"],
    "description": 'Number, "<id>.<created_at>" or key of the project.',
}

MODEL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": _TEXT,
        "kind": {"type": "string", "enum": [kind.value for kind in ModelKind]},
        "licence": {**_TEXT, "description": "Never laxer than that of what it was made from."},
        "architecture": _TEXT,
        "sha256": {
            **_TEXT_OR_NULL,
            "description": "Of the weights; null where no engine has looked at them yet.",
        },
        "diameter": {
            "type": ["number", "null"],
            "description": "Of the objects that it was fine-tuned on, in pixels.",
        },
        "project": {"anyOf": [PROJECT_SCHEMA, {"type": "null"}]},
        "dataset": _TEXT_OR_NULL,
        "session": _TEXT_OR_NULL,
        "parent": _TEXT_OR_NULL,
        "lineage": {**_TEXTS, "description": "What it was made from, the base last."},
        "metrics": {"type": "object"},
        "controls": {**_TEXTS, "description": "That it was trained for."},
        "serves": {
            "type": "array",
            "description": "What it feeds now.",
            "items": {
                "type": "object",
                "properties": {"project": _TEXT, "control": _TEXT},
                "required": ["project", "control"],
            },
        },
        "state": _TEXT,
        "created_at": {"type": ["string", "null"], "format": "date-time"},
        "url": _TEXT,
        "message": _TEXT_OR_NULL,
        "available": {"type": "boolean", "description": "Whether its weights are there."},
    },
    "required": ["name", "kind", "licence", "lineage", "serves", "url", "available"],
    "example": {
        "name": "nuclei-1-p3-v2",
        "kind": "published",
        "licence": "CC0-1.0",
        "architecture": "residual-unet",
        "sha256": "3fa9c2d1" * 8,
        "diameter": 31.5,
        "project": PROJECT_SCHEMA["example"],
        "dataset": None,
        "session": "3f2a91c0b7d84e6f9a1c2b3d4e5f6071",
        "parent": "nuclei-1",
        "lineage": ["nuclei-1"],
        "metrics": {"candidate": {"mean": 0.71}, "active": {"mean": 0.64}},
        "controls": ["cells"],
        "serves": [{"project": "http://localhost:8080#3.1795215681", "control": "cells"}],
        "state": "published",
        "created_at": "2026-11-21T08:12:40.000+00:00",
        "url": f"{API_PREFIX}/models/nuclei-1-p3-v2",
        "message": "It scores better.",
        "available": True,
    },
}
ACTIVATE_BODY = json_body(
    {
        "type": "object",
        "properties": {
            "project": {
                "anyOf": [_PROJECT, {"type": "null"}],
                "description": (
                    "That shall serve it; without it the one that it was trained on. Models of "
                    "datasets and uploaded ones need it."
                ),
            },
            "controls": {
                "anyOf": [_TEXTS, {"type": "null"}],
                "description": (
                    "Of its label config, that it shall feed; without it those that it was trained "
                    "for, in another project all that are fed with masks."
                ),
            },
        },
    },
    example={"project": 3, "controls": ["cells"]},
    required=False,
)
ROLLBACK_BODY = json_body(
    {
        "type": "object",
        "properties": {
            "project": _PROJECT,
            "to_base": {
                "type": "boolean",
                "description": "To what the label config asks for, whatever was served between.",
            },
        },
        "required": ["project"],
    },
    example={"project": 3},
)
