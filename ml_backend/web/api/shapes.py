"""What /api/v1 answers: sessions and versions as JSON, and how OpenAPI describes it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ml_backend.domain import Component, ProjectKey
from ml_backend.learning import Activation, Session, SessionState, Version

_FOR_TRAINERS = frozenset({"furthest", "tries"})  # counted across processes; nobody else's


def session_json(session: Session) -> dict[str, Any]:
    """Return a session without its manifest, which may be long."""
    return {
        "id": session.id,
        "project": project_json(session.project),
        "state": session.state,
        "currently_training": session.state is SessionState.RUNNING,
        "stop_requested": session.stop_requested,
        "trigger": session.trigger,
        "owner": session.owner,
        "controls": list(session.controls),
        "parameters": session.parameters.canonical(),
        "created_at": moment_json(session.created_at),
        "started_training_at": moment_json(session.started_at),
        "finished_training_at": moment_json(session.finished_at),
        "heartbeat_at": moment_json(session.heartbeat_at),
        "attempts": session.attempts,
        "progress": {
            name: value for name, value in session.progress.items() if name not in _FOR_TRAINERS
        },
        "message": session.message,
        "version": session.version,
        "report": dict(session.report),
    }


def version_json(version: Version, *, serves: list[str]) -> dict[str, Any]:
    """Return a version; `serves` names the controls that it feeds now."""
    return {
        "name": version.name,
        "project": project_json(version.project),
        "state": version.state,
        "controls": list(version.controls),
        "serves": serves,
        "session": version.session_id,
        "parent": version.parent,
        "created_at": moment_json(version.created_at),
        "component": component_json(version.component),
        "metrics": dict(version.metrics),
        "message": version.message,
    }


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

PROJECT_SCHEMA = {
    "type": "object",
    "properties": {"key": _TEXT, "id": _WHOLE, "created_at": _MOMENT, "label_studio": _TEXT},
    "example": {
        "key": "http://localhost:8080#3.1795215681",
        "id": 3,
        "created_at": "2026-11-20T23:01:21.000+00:00",
        "label_studio": "http://localhost:8080",
    },
}
SESSION_SCHEMA = {
    "type": "object",
    "properties": {
        "id": _TEXT,
        "project": PROJECT_SCHEMA,
        "state": {"type": "string", "enum": [state.value for state in SessionState]},
        "currently_training": {"type": "boolean"},
        "stop_requested": {"type": "boolean"},
        "trigger": _TEXT,
        "owner": _TEXT_OR_NULL,
        "controls": _TEXTS,
        "parameters": _OBJECT,
        "created_at": _MOMENT,
        "started_training_at": _MOMENT,
        "finished_training_at": _MOMENT,
        "heartbeat_at": _MOMENT,
        "attempts": _WHOLE,
        "progress": {
            **_OBJECT,
            "example": {"phase": "training", "epoch": 12, "epochs": 100, "eta_s": 310.0},
        },
        "message": _TEXT_OR_NULL,
        "version": _TEXT_OR_NULL,
        "report": _OBJECT,
    },
}
PICTURES_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"items": {"type": "array", "items": {"type": "string"}}},
    "required": ["items"],
}
CURVES_SCHEMA = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "properties": {
            name: {"type": ["number", "null"]}
            for name in ("loss", "lr", "val_loss", "ap50", "ap75", "ap90", "seconds", "step")
        },
    },
    "example": {
        "1": {
            "loss": 0.61,
            "lr": 0.0001,
            "val_loss": 0.66,
            "ap50": 0.02,
            "ap75": 0.0,
            "ap90": 0.0,
            "seconds": 9.1,
            "step": 20,
        }
    },
}
VERSION_SCHEMA = {
    "type": "object",
    "properties": {
        "name": _TEXT,
        "project": PROJECT_SCHEMA,
        "state": _TEXT,
        "controls": _TEXTS,
        "serves": _TEXTS,
        "session": _TEXT_OR_NULL,
        "parent": _TEXT,
        "created_at": _MOMENT,
        "component": _OBJECT,
        "metrics": _OBJECT,
        "message": _TEXT_OR_NULL,
    },
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
