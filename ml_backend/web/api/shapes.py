"""What /api/v1 answers: changes and projects as JSON, and how OpenAPI describes it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ml_backend.domain import Component, ProjectKey
from ml_backend.learning import Activation


def activation_json(activation: Activation) -> dict[str, Any]:
    """Return a change of what a project serves."""
    return {
        "id": activation.id,
        "project": project_json(activation.project),
        "state": activation.state,
        "release": activation.release,
        "versions": {name: network.name for name, network in activation.components.items()},
        "back_to_base": list(activation.removed),
        "reason": activation.reason,
        "message": activation.message,
        "created_at": moment_json(activation.created_at),
        "finished_at": moment_json(activation.finished_at),
    }


def component_json(component: Component) -> dict[str, Any]:
    """Return a network without the path of its file, which is nobody's business."""
    return {
        "name": component.name,
        "architecture": component.architecture,
        "sha256": component.sha256,
        "licence": component.licence,
        "diameter": component.diameter,
    }


def project_json(project: ProjectKey) -> dict[str, Any]:
    """Return which project of which Label Studio it is; `key` names it without doubt."""
    return {
        "key": str(project),
        "id": project.project_id,
        "created_at": moment_json(float(project.created_at)),
        "label_studio": project.origin,
    }


def moment_json(at: float | None) -> str | None:
    """Return a moment as RFC 3339 in UTC, None for none."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


# How OpenAPI describes them

_MOMENT = {"type": ["string", "null"], "format": "date-time"}
_TEXT, _TEXT_OR_NULL = {"type": "string"}, {"type": ["string", "null"]}
_TEXTS = {"type": "array", "items": _TEXT}
_OBJECT: dict[str, Any] = {"type": "object"}
_WHOLE = {"type": "integer"}

PROJECT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"key": _TEXT, "id": _WHOLE, "created_at": _MOMENT, "label_studio": _TEXT},
    "example": {
        "key": "http://localhost:8080#3.1795215681",
        "id": 3,
        "created_at": "2026-11-20T23:01:21.000+00:00",
        "label_studio": "http://localhost:8080",
    },
}
PICTURES_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"items": {"type": "array", "items": {"type": "string"}}},
    "required": ["items"],
}
ACTIVATION_SCHEMA = {
    "type": "object",
    "properties": {
        "id": _WHOLE,
        "project": PROJECT_SCHEMA,
        "state": _TEXT,
        "release": _TEXT_OR_NULL,
        "versions": {"type": "object", "additionalProperties": _TEXT},
        "back_to_base": _TEXTS,
        "reason": _TEXT,
        "message": _TEXT_OR_NULL,
        "created_at": _MOMENT,
        "finished_at": _MOMENT,
    },
}
PROBLEM_SCHEMA = {
    "type": "object",
    "properties": {
        "type": _TEXT,
        "title": _TEXT,
        "status": _WHOLE,
        "detail": _TEXT,
        "code": _TEXT,
        "request_id": _TEXT_OR_NULL,
    },
    "example": {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "There is no session 'x'; `ml-backend sessions list` shows all.",
        "code": "request.not_found",
        "request_id": "0f6c1e2d3a4b5c6d",
    },
}


def page_schema(items: dict[str, Any]) -> dict[str, Any]:
    """Return how a page of a list is described."""
    properties = {"items": {"type": "array", "items": items}, "next": _TEXT_OR_NULL}
    return {"type": "object", "properties": properties, "required": ["items", "next"]}
