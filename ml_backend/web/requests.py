"""Reads request bodies: bounded, checked, and only as much of them as is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import msgspec
from fastapi import Request

from ml_backend.domain import Task
from ml_backend.errors import BadRequest, RequestTooLarge
from ml_backend.labelstudio.json_text import decode_json
from ml_backend.labelstudio.webhooks import UNKNOWN_ORIGIN
from ml_backend.store.projects import parse_project

_MAX_ID = 2**63 - 1
_ACTION_CHARS = 100


@dataclass(frozen=True, kw_only=True)
class SetupRequest:
    """What Label Studio says of a project."""

    project_id: int
    created_at: int  # seconds since the epoch
    label_config: str
    hostname: str | None
    access_token: str | None = field(repr=False)
    extra_params: Any = None  # what is entered for the backend in Label Studio, any JSON


@dataclass(frozen=True, kw_only=True)
class PredictRequest:
    """What Label Studio asks for, trimmed: its tasks carry all annotations and predictions."""

    project: str  # "<id>.<created_at>", empty if it was not given
    tasks: Sequence[Task]
    label_config: str | None
    context: Mapping[str, Any] | None = None  # what a person draws; None: nobody does


@dataclass(frozen=True, kw_only=True)
class EventRequest:
    """What a webhook event says of itself."""

    action: str
    project_id: int | None


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the request's body.

    Raises:
        RequestTooLarge: it is over `max_bytes`; nothing more of it is read.
    """
    too_large = RequestTooLarge(
        f"The request is larger than MAX_REQUEST_MB ({max_bytes / 1e6:g} MB); "
        "select fewer tasks at once, or raise MAX_REQUEST_MB."
    )
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > max_bytes:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


def parse_setup(body: bytes) -> SetupRequest:
    """Return what a /setup request says.

    Raises:
        BadRequest: the project or its label config is missing.
    """
    content = decode_json(body, _SetupBody)
    parsed = parse_project(content.project) if isinstance(content.project, str) else None
    if parsed is None:
        raise BadRequest('"project" must be "<id>.<created_at>" as Label Studio sends it.')
    if not isinstance(content.schema, str):
        raise BadRequest('"schema" must be the label config as a text.')
    return SetupRequest(
        project_id=parsed[0],
        created_at=parsed[1],
        label_config=content.schema.replace("\0", ""),
        hostname=_text(content.hostname),
        access_token=_text(content.access_token),
        extra_params=content.extra_params,
    )


def parse_predict(body: bytes) -> PredictRequest:
    """Return what a /predict request asks for.

    Raises:
        BadRequest: there are no tasks, or one has no id.
    """
    content = decode_json(body, _PredictBody)
    if not content.tasks:
        raise BadRequest('"tasks" must be a list of at least one task.')
    return PredictRequest(
        project=content.project if isinstance(content.project, str) else "",
        tasks=[_to_task(task, index) for index, task in enumerate(content.tasks)],
        label_config=_text(content.label_config),
    )


def parse_whole_predict(body: bytes) -> PredictRequest:
    """Return what a /predict request asks for, with all that it says of its tasks.

    Raises:
        BadRequest: as `parse_predict`.
    """
    wanted = parse_predict(body)
    content = decode_json(body, _WholePredictBody)
    params = content.params if isinstance(content.params, dict) else {}
    context = params.get("context")
    return replace(
        wanted,
        tasks=[
            replace(task, row={name: row[name] for name in row.keys() - {"id", "data"}})
            for task, row in zip(wanted.tasks, content.tasks, strict=True)
        ],
        context=context if isinstance(context, dict) else None,
    )


def parse_event(body: bytes) -> EventRequest:
    """Return what a webhook event says of itself.

    Raises:
        BadRequest: it has no name.
    """
    content = decode_json(body, _EventBody)
    action = content.action.replace("\0", "").strip() if isinstance(content.action, str) else ""
    if not action:
        raise BadRequest('"action" must name the event, as Label Studio does.')
    project = content.project if isinstance(content.project, dict) else {}
    return EventRequest(action=action[:_ACTION_CHARS], project_id=_id(project.get("id")))


def parse_job(body: bytes) -> str:
    """Return the job that a /job_status request asks about.

    Raises:
        BadRequest: it names none.
    """
    job = _text(decode_json(body, _JobBody).job)
    if job is None:
        raise BadRequest('"job" must be the id that /webhook answered.')
    return job


def origin_of(hostname: str | None) -> str:
    """Return the origin that a /setup's hostname names: scheme://host[:port][/prefix]."""
    if hostname is None:
        return UNKNOWN_ORIGIN
    try:
        parts = urlsplit(hostname.strip())
    except ValueError:
        return UNKNOWN_ORIGIN
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return UNKNOWN_ORIGIN
    host = parts.netloc.rpartition("@")[2].lower()
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}"


class _SetupBody(msgspec.Struct):
    project: Any = None
    schema: Any = None
    hostname: Any = None
    access_token: Any = None
    extra_params: Any = None


class _TaskBody(msgspec.Struct):
    id: Any = None
    data: Any = None


class _PredictBody(msgspec.Struct):
    tasks: list[_TaskBody]
    project: Any = None
    label_config: Any = None


class _WholePredictBody(msgspec.Struct):
    tasks: list[dict[str, Any]]
    params: Any = None


class _EventBody(msgspec.Struct):
    action: Any = None
    project: Any = None


class _JobBody(msgspec.Struct):
    job: Any = None


def _to_task(task: _TaskBody, index: int) -> Task:
    task_id = _id(task.id)
    if task_id is None:
        raise BadRequest(f'Task {index} of the request has no "id" that is a whole number.')
    return Task(id=task_id, data=task.data if isinstance(task.data, dict) else {})


def _id(value: Any) -> int | None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return value if is_whole and 0 <= value <= _MAX_ID else None


def _text(value: Any) -> str | None:
    # PostgreSQL cannot hold the NUL character
    return value.replace("\0", "") if isinstance(value, str) and value else None
