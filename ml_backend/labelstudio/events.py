"""The bodies of Label Studio's webhooks -> what they say, one type per kind of event.

An event is a hint: it may come twice, late, in any order, or never. Rows in it that cannot be
read are passed over, each with a sentence, so that one of them does not spoil the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from ml_backend.errors import BadRequest
from ml_backend.labelstudio.annotation_rows import (
    parse_annotation,
    parse_labelled_task,
    read_id,
    read_time,
)
from ml_backend.labelstudio.json_text import decode_json
from ml_backend.learning import Annotation, LabelledTask

Row = TypeVar("Row")

_MAX_PROJECT_ID = 10**18 - 1  # what the key of a project can hold


@dataclass(frozen=True, kw_only=True)
class EventProject:
    """What an event says of its project."""

    id: int
    created_at: int | None  # seconds since the epoch
    trains_every: int = 0  # Label Studio sends START_TRAINING on every Nth save; 0 = it does not


@dataclass(frozen=True, kw_only=True)
class LabelStudioEvent:
    """What all events say."""

    action: str
    project: EventProject | None
    problems: tuple[str, ...] = ()  # a sentence for each row that cannot be read


@dataclass(frozen=True, kw_only=True)
class AnnotationsSaved(LabelStudioEvent):
    """People made or changed annotations, or skipped tasks."""

    annotations: tuple[Annotation, ...] = field(default=(), repr=False)
    tasks: tuple[LabelledTask, ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class AnnotationsDeleted(LabelStudioEvent):
    """Annotations were deleted; Label Studio says only which."""

    annotation_ids: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TasksSaved(LabelStudioEvent):
    """Tasks were imported."""

    tasks: tuple[LabelledTask, ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class TasksDeleted(LabelStudioEvent):
    """Tasks were deleted, and their annotations with them."""

    task_ids: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ProjectUpdated(LabelStudioEvent):
    """Somebody saved the project's settings."""


@dataclass(frozen=True, kw_only=True)
class TrainingWanted(LabelStudioEvent):
    """Somebody pressed Start Training, or Label Studio did on an Nth save."""

    @property
    def is_hint(self) -> bool:
        """Return whether Label Studio sends it by itself on every Nth save."""
        return self.project is not None and self.project.trains_every > 0


@dataclass(frozen=True, kw_only=True)
class UnknownEvent(LabelStudioEvent):
    """An event that means nothing to us."""


def read_event(payload: bytes, *, heard_at: float) -> LabelStudioEvent:
    """Return what a webhook's body says.

    Args:
        payload: The body as it came.
        heard_at: When it came, seconds since the epoch: the time of rows that name none.

    Raises:
        BadRequest: it is no JSON object with an action, or of a project that cannot be.
    """
    body = decode_json(payload, _Body)
    if not isinstance(body.action, str):
        raise BadRequest('"action" must name the event, as Label Studio does.')
    action, project = body.action, _project(body.project)
    match action:
        case "ANNOTATION_CREATED" | "ANNOTATION_UPDATED" | "ANNOTATIONS_CREATED":
            tasks = _Rows(_listed(body.task), parse_labelled_task)
            only_task = tasks.found[0].task_id if len(tasks.found) == 1 else None
            annotations = _Rows(
                _listed(body.annotation),
                lambda row: parse_annotation(row, heard_at=heard_at, task_id=only_task),
            )
            return AnnotationsSaved(
                action=action,
                project=project,
                annotations=tuple(annotations.found),
                tasks=tuple(tasks.found),
                problems=(*annotations.problems, *tasks.problems),
            )
        case "ANNOTATIONS_DELETED" | "ANNOTATION_DELETED":
            # older Label Studios send the second one
            ids = _Rows([*_listed(body.annotations), *_listed(body.annotation)], _id_of)
            return AnnotationsDeleted(
                action=action,
                project=project,
                annotation_ids=tuple(ids.found),
                problems=tuple(ids.problems),
            )
        case "TASKS_CREATED" | "TASKS_UPDATED":
            tasks = _Rows(_listed(body.tasks), parse_labelled_task)
            return TasksSaved(
                action=action,
                project=project,
                tasks=tuple(tasks.found),
                problems=tuple(tasks.problems),
            )
        case "TASKS_DELETED":
            ids = _Rows(_listed(body.tasks), _id_of)
            return TasksDeleted(
                action=action,
                project=project,
                task_ids=tuple(ids.found),
                problems=tuple(ids.problems),
            )
        case "PROJECT_UPDATED":
            return ProjectUpdated(action=action, project=project)
        case "START_TRAINING":
            return TrainingWanted(action=action, project=project)
        case _:
            return UnknownEvent(action=action, project=project)


class _Body(msgspec.Struct):
    action: Any = None
    project: Any = None
    annotation: Any = None
    annotations: Any = None
    task: Any = None
    tasks: Any = None


class _Rows(Generic[Row]):
    """Rows that could be read, and a sentence for each that could not."""

    def __init__(self, rows: Iterable[Any], read: Callable[[Any], Row]) -> None:
        self.found: list[Row] = []
        self.problems: list[str] = []
        for row in rows:
            try:
                self.found.append(read(row))
            except BadRequest as error:
                self.problems.append(error.message)


def _listed(rows: Any) -> list[Any]:
    if rows is None:
        return []
    return rows if isinstance(rows, list) else [rows]


def _id_of(row: Any) -> int:
    found = read_id(row.get("id") if isinstance(row, dict) else row)
    if found is None:
        raise BadRequest("A deleted row has no number.")
    return found


def _project(row: Any) -> EventProject | None:
    project_id = read_id(row.get("id")) if isinstance(row, dict) else None
    if project_id is None:
        return None
    created_at = read_time(row.get("created_at"))
    if project_id > _MAX_PROJECT_ID or (created_at is not None and created_at < 0):
        raise BadRequest(
            f"The event is of project {project_id}, made at {row.get('created_at')!r}, which "
            "cannot be: send numbers of at most 18 digits and times since 1970, as Label Studio "
            "does."
        )
    return EventProject(
        id=project_id,
        created_at=None if created_at is None else int(created_at),
        trains_every=read_id(row.get("min_annotations_to_start_training")) or 0,
    )
