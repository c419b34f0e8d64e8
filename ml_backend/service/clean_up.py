"""Removes predictions of old versions from Label Studio, those that nobody can be working on.

A person whose page holds a prediction that is gone cannot submit: Label Studio refuses, and only
loading the page anew helps. So a prediction leaves only when the task has had one of the served
version for long enough (every page opened since then shows that one), nobody has touched the task
or left a draft in it since, and no annotation came from it, since that says what its author saw.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from ml_backend.domain import ProjectKey
from ml_backend.errors import Conflict
from ml_backend.labelstudio.stored_predictions import StoredPrediction, TaskVersions

DEFAULT_DAYS = 30.0
LEAST_DAYS = 1.0
_DAY_S = 86_400.0

log = structlog.get_logger(__name__)


class PredictionShelf(Protocol):
    """The part of `StoredPredictions` that is needed here."""

    def tasks_with(self, project_id: int, version: str) -> Iterator[TaskVersions]:
        """Yield the tasks that hold a prediction of `version`."""
        ...

    def of_task(self, task_id: int) -> list[StoredPrediction]:
        """Return the predictions of a task."""
        ...

    def delete(self, prediction_id: int) -> bool:
        """Remove a prediction; False when it was gone."""
        ...


@dataclass(frozen=True, kw_only=True)
class CleanedUp:
    """What a clean-up removed, or would remove."""

    removed: int
    kept_open: int  # an open page or a draft may hold them, or they are too young
    kept_annotated: int  # an annotation came from them

    def sentence(self, *, dry_run: bool) -> str:
        """Return it for a person."""
        verb = "would be removed" if dry_run else "were removed"
        return (
            f"{self.removed} predictions of old versions {verb}; {self.kept_open} stay because "
            f"somebody may have them open, {self.kept_annotated} because annotations came from "
            "them."
        )


def clean_up(
    shelf: PredictionShelf,
    project: ProjectKey,
    *,
    served: str,
    served_since: float,
    known: Sequence[str],
    annotated_from: Collection[int],
    older_than_days: float = DEFAULT_DAYS,
    dry_run: bool = True,
    clock: Callable[[], float] = time.time,
) -> CleanedUp:
    """Remove old predictions of `project` that no open task can hold.

    Args:
        shelf: the predictions in Label Studio.
        project: whose tasks.
        served: the version that is served; its predictions stay.
        served_since: seconds since the epoch; until then pages showed another version's.
        known: all versions of the project; predictions of others are not ours.
        annotated_from: numbers of predictions that annotations came from (`parent_prediction`).
        older_than_days: how long nobody may have had to do with them.
        dry_run: whether to count only.
        clock: seconds since the epoch.

    Raises:
        Conflict: so young a prediction may be open in somebody's browser.
        LabelStudioError
    """
    if older_than_days < LEAST_DAYS:
        raise Conflict(
            f"Predictions younger than {LEAST_DAYS:g} day may be open in somebody's browser; "
            "choose more days."
        )
    before = clock() - older_than_days * _DAY_S
    old = set(known) - {served}
    removed = kept_open = kept_annotated = 0
    done: set[int] = set()
    for version in sorted(old):
        # collected first: what is removed would change the pages
        for task in list(shelf.tasks_with(project.project_id, version)):
            if task.task_id in done:
                continue
            done.add(task.task_id)
            rows = shelf.of_task(task.task_id) if served in task.versions else []
            theirs = [row for row in rows if row.version in old]
            since = max(served_since, _first(rows, served))
            if since >= before or task.updated_at >= before or task.has_draft:
                kept_open += len(theirs) or len(task.versions & old)
                continue
            for row in theirs:
                if row.id in annotated_from:
                    kept_annotated += 1
                elif row.created_at >= before:
                    kept_open += 1
                elif dry_run or shelf.delete(row.id):
                    removed += 1
    cleaned = CleanedUp(removed=removed, kept_open=kept_open, kept_annotated=kept_annotated)
    log.info("predictions cleaned up", project=str(project), dry_run=dry_run, **vars(cleaned))
    return cleaned


def _first(rows: Sequence[StoredPrediction], version: str) -> float:
    """Return since when there is a prediction of `version`; never: infinity."""
    return min((row.created_at for row in rows if row.version == version), default=math.inf)
