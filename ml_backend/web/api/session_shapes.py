"""What /api/v1 answers about trainings, and how OpenAPI describes it."""

from __future__ import annotations

import math
import time
from typing import Any
from urllib.parse import urlsplit

from ml_backend.datasets import DatasetSource, StoredDataset
from ml_backend.learning import EpochPoint, Session, SessionState, SessionStatus
from ml_backend.recipes import DEFAULTS
from ml_backend.service.curves import PIXELS, curves_json
from ml_backend.service.session_debug import SessionDebug
from ml_backend.service.training_parameter import TrainingParameter
from ml_backend.service.training_parameters import named_parameters
from ml_backend.store.datasets import DatasetUse
from ml_backend.web.api.shapes import PROJECT_SCHEMA, moment_json, project_json

TEST_REPORT = "test"  # key of a session's report: precision on the test set
_FOR_TRAINERS = frozenset({"furthest", "tries"})  # counted across processes; nobody else's


def session_json(session: Session, *, now: float | None = None) -> dict[str, Any]:
    """Return a session without its manifest, which may be long."""
    return {
        "id": session.id,
        "project": None if session.dataset else project_json(session.project),
        "dataset": session.dataset,
        "label": session.label,
        "state": session.state,
        "status": session.status_at(time.time() if now is None else now),
        "currently_training": session.state is SessionState.RUNNING,
        "stop_requested": session.stop_requested,
        "trigger": session.trigger,
        "owner": session.owner,
        "controls": list(session.controls),
        "base": session.base,
        "restarted_from": session.restarted_from,
        "parameters": named_parameters(session.parameters),
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
        "test": session.report.get(TEST_REPORT),
        "report": dict(session.report),
    }


def point_json(point: EpochPoint) -> dict[str, Any]:
    """Return a point of a curve with its epoch."""
    return {"epoch": point.epoch, **curves_json([point])[str(point.epoch)]}


def debug_json(debug: SessionDebug) -> dict[str, Any]:
    """Return why a session is in its state."""
    lease = debug.lease
    return {
        "id": debug.session.id,
        "state": debug.session.state,
        "status": debug.status,
        "reason": debug.reason,
        "next_step": debug.next_step,
        "queue_position": debug.queue_position,
        "lease": {
            "number": lease.number,
            "owner": lease.owner,
            "until": moment_json(lease.until),
            "seconds_left": _rounded(lease.seconds_left),
        },
        "heartbeat_age_s": _rounded(debug.heartbeat_age_s),
        "attempts": debug.session.attempts,
        "trainer": lease.owner,
        "trainers": list(debug.trainers),
    }


def dataset_json(dataset: StoredDataset, use: DatasetUse) -> dict[str, Any]:
    """Return a dataset and what came of it."""
    return {
        "name": dataset.name,
        "source": source_json(dataset.source),
        "created_at": moment_json(dataset.created_at),
        "sessions": use.sessions,
        "models": use.models,
    }


def source_json(source: DatasetSource) -> dict[str, Any]:
    """Return where a dataset lies, without what follows ? in an address: it may be a secret."""
    root = source.root
    if "://" in root:
        root = urlsplit(root)._replace(query="", fragment="").geturl()
    return {**source.canonical(), "root": root}


def parameter_json(parameter: TrainingParameter) -> dict[str, Any]:
    """Return a training parameter, our defaults and the reference's."""
    reference = parameter.reference
    return {
        "name": parameter.name,
        "meaning": parameter.meaning,
        "allowed": parameter.allowed,
        "projects_only": parameter.of_projects_only,
        "defaults": parameter.defaults(),
        "reference_default": None if reference is None else reference.default,
        "why": None if reference is None else reference.why,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None or not math.isfinite(seconds) else round(seconds, 3)


# How OpenAPI describes them

_MOMENT = {"type": ["string", "null"], "format": "date-time"}
_TEXT, _TEXT_OR_NULL = {"type": "string"}, {"type": ["string", "null"]}
_TEXTS = {"type": "array", "items": _TEXT}
_OBJECT: dict[str, Any] = {"type": "object"}
_WHOLE = {"type": "integer"}
_NUMBER_OR_NULL = {"type": ["number", "null"]}

SESSION_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": _TEXT,
        "project": {"anyOf": [PROJECT_SCHEMA, {"type": "null"}]},
        "dataset": {**_TEXT_OR_NULL, "description": "Its name; null: a project is trained."},
        "label": _TEXT_OR_NULL,
        "state": {"type": "string", "enum": [state.value for state in SessionState]},
        "status": {
            "type": "string",
            "enum": [status.value for status in SessionStatus],
            "description": "Its state; unknown: it runs, but its trainer is not heard of.",
        },
        "currently_training": {"type": "boolean"},
        "stop_requested": {"type": "boolean"},
        "trigger": _TEXT,
        "owner": _TEXT_OR_NULL,
        "controls": _TEXTS,
        "base": {**_TEXT_OR_NULL, "description": "The model that was asked for."},
        "restarted_from": _TEXT_OR_NULL,
        "parameters": {**_OBJECT, "description": "null = the network's own default."},
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
        "version": {**_TEXT_OR_NULL, "description": "Name of the model that it made."},
        "test": {
            "type": ["object", "null"],
            "description": "Precision on the test set, null where there is none.",
        },
        "report": _OBJECT,
    },
}
_POINT = ("loss", "lr", "val_loss", "ap50", "ap75", "ap90", *PIXELS, "seconds", "step")
CURVES_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "properties": dict.fromkeys(_POINT, _NUMBER_OR_NULL),
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
DEBUG_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": _TEXT,
        "state": _TEXT,
        "status": _TEXT,
        "reason": _TEXT,
        "next_step": _TEXT,
        "queue_position": {"type": ["integer", "null"]},
        "lease": {
            "type": "object",
            "properties": {
                "number": _WHOLE,
                "owner": _TEXT_OR_NULL,
                "until": _MOMENT,
                "seconds_left": _NUMBER_OR_NULL,
            },
        },
        "heartbeat_age_s": _NUMBER_OR_NULL,
        "attempts": _WHOLE,
        "trainer": _TEXT_OR_NULL,
        "trainers": _TEXTS,
    },
    "example": {
        "id": "3f2a91c0d4e84b6f9a1c2b3d4e5f6071",
        "state": "queued",
        "status": "queued",
        "reason": "It has waited for 75 s, and no trainer was there for the last 60 s.",
        "next_step": "Start a trainer with `ml-backend serve` or `ml-backend trainer`; if one is "
        "running, look into its log.",
        "queue_position": 1,
        "lease": {"number": 0, "owner": None, "until": None, "seconds_left": None},
        "heartbeat_age_s": None,
        "attempts": 0,
        "trainer": None,
        "trainers": [],
    },
}
DATASET_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": _TEXT,
        "source": _OBJECT,
        "created_at": _MOMENT,
        "sessions": _WHOLE,
        "models": _WHOLE,
    },
    "example": {
        "name": "nuclei",
        "source": {
            "root": "/data/nuclei",
            "train_images": "images/*.tif",
            "train_annotations": "masks/*_label.tif",
            "test_images": None,
            "test_annotations": None,
            "metadata_dir": None,
        },
        "created_at": "2026-11-20T23:01:21.000+00:00",
        "sessions": 4,
        "models": 2,
    },
}
_DEFAULT = {"type": ["number", "string", "boolean"]}
PARAMETER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": _TEXT,
        "meaning": _TEXT,
        "allowed": _TEXT,
        "projects_only": {"type": "boolean"},
        "defaults": {"type": "object", "properties": dict.fromkeys(DEFAULTS, _DEFAULT)},
        "reference_default": {"type": ["number", "string", "boolean", "null"]},
        "why": _TEXT_OR_NULL,
    },
}
