"""Label Studio's rows of annotations and tasks, as the ledger keeps them.

Events and the API's answers have the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ml_backend.errors import BadRequest
from ml_backend.learning import Annotation, LabelledTask

_MAX_ID = 2**63 - 1


def parse_annotation(item: Any, *, heard_at: float, task_id: int | None = None) -> Annotation:
    """Return an annotation from Label Studio's row.

    Args:
        item: The row.
        heard_at: Its time when it names none, seconds since the epoch.
        task_id: Its task when it names none.

    Raises:
        BadRequest: it has no id, no task, or its result is no list.
    """
    if not isinstance(item, Mapping):
        raise BadRequest(f"An annotation is {type(item).__name__} and no JSON object.")
    annotation_id = read_id(item.get("id"))
    if annotation_id is None:
        raise BadRequest('An annotation has no "id" that is a whole number.')
    task = read_id(_reference(item.get("task")))
    task = task_id if task is None else task
    if task is None:
        raise BadRequest(f"Annotation {annotation_id} names no task.")
    result = item.get("result")
    if result is not None and not isinstance(result, list):
        raise BadRequest(f"The result of annotation {annotation_id} is no list.")
    return Annotation(
        task_id=task,
        annotation_id=annotation_id,
        updated_at=read_time(item.get("updated_at"))
        or read_time(item.get("created_at"))
        or heard_at,
        cancelled=bool(item.get("was_cancelled")),
        ground_truth=bool(item.get("ground_truth")),
        completed_by=read_id(_reference(item.get("completed_by"))),
        parent_prediction=read_id(_reference(item.get("parent_prediction"))),
        result=[region for region in result or () if isinstance(region, Mapping)],
    )


def parse_labelled_task(item: Any) -> LabelledTask:
    """Return a task from Label Studio's row.

    Raises:
        BadRequest: it has no id, or its data is no object.
    """
    task_id = read_id(item.get("id")) if isinstance(item, Mapping) else None
    if task_id is None:
        raise BadRequest('A task has no "id" that is a whole number.')
    data = item.get("data")
    if not isinstance(data, Mapping):
        raise BadRequest(f"Task {task_id} has no data.")
    return LabelledTask(task_id=task_id, data=data)


def read_id(value: Any) -> int | None:
    """Return a row's number, None when it is none."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return value if is_whole and 0 <= value <= _MAX_ID else None


def read_time(value: Any) -> float | None:
    """Return the seconds since the epoch that Label Studio's text names, None when it is none."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = moment.timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None


def _reference(value: Any) -> Any:
    # Label Studio writes a number; other versions expand people and tasks to objects
    return value.get("id") if isinstance(value, Mapping) else value
