"""Predictions that Label Studio keeps: which tasks hold which versions, and their removal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from ml_backend.domain import Prediction
from ml_backend.errors import LabelStudioError
from ml_backend.labelstudio.connection import Connection

_TASKS_PER_PAGE = 200
_COLUMNS = "id,updated_at,predictions_model_versions"


@dataclass(frozen=True, kw_only=True)
class TaskVersions:
    """A task and the versions that it holds predictions of."""

    task_id: int
    updated_at: float
    has_draft: bool  # somebody has begun and not submitted
    versions: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class StoredPrediction:
    """A prediction in Label Studio, without what it says."""

    id: int
    version: str
    created_at: float


class StoredPredictions:
    """Reads without side effects, and one removal."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def tasks_with(self, project_id: int, version: str) -> Iterator[TaskVersions]:
        """Yield the tasks that hold a prediction of `version`, those without a draft first.

        Raises:
            LabelStudioError
        """
        for has_draft in (False, True):
            yield from self._tasks_with(project_id, version, has_draft=has_draft)

    def _tasks_with(
        self, project_id: int, version: str, *, has_draft: bool
    ) -> Iterator[TaskVersions]:
        last = 0
        while True:
            # by number and not by page: a task that leaves meanwhile would hide another one
            page = self._connection.ask(
                "GET",
                "api/tasks/",
                params={
                    "project": project_id,
                    "page_size": _TASKS_PER_PAGE,
                    "resolve_uri": "false",
                    "include": _COLUMNS,
                    "query": _query(version, has_draft=has_draft, after=last),
                },
            )
            for item in page["tasks"]:
                found = _task_versions(item, has_draft=has_draft)
                if version in found.versions:  # Label Studio also finds longer names
                    yield found
            if len(page["tasks"]) >= int(page["total"]) or not page["tasks"]:
                return
            last = int(page["tasks"][-1]["id"])

    def of_task(self, task_id: int) -> list[StoredPrediction]:
        """Return the predictions of a task.

        Raises:
            LabelStudioError
        """
        rows = self._connection.ask("GET", "api/predictions/", params={"task": task_id})
        return [
            StoredPrediction(
                id=int(row["id"]),
                version=str(row["model_version"] or ""),
                created_at=_moment(row["created_at"]),
            )
            for row in rows
        ]

    def newest_of_task(self, task_id: int, version: str) -> Prediction | None:
        """Return the newest prediction of a task by `version`, with what it says; None = none.

        Raises:
            LabelStudioError
        """
        rows = self._connection.ask("GET", "api/predictions/", params={"task": task_id})
        made = [row for row in rows if row["model_version"] == version]
        if not made:
            return None
        newest = max(made, key=lambda row: int(row["id"]))
        result = newest.get("result")
        return Prediction(
            result=result if isinstance(result, list) else [],
            score=newest.get("score"),
            model_version=version,
            cluster=newest.get("cluster"),
        )

    def delete(self, prediction_id: int) -> bool:
        """Remove a prediction; False when it was gone.

        A person whose page still holds it can no longer submit.

        Raises:
            LabelStudioError
        """
        try:
            self._connection.ask("DELETE", f"api/predictions/{prediction_id}/")
        except LabelStudioError as error:
            if error.status == 404:
                return False
            raise
        return True


def _query(version: str, *, has_draft: bool, after: int) -> str:
    conditions: Sequence[Mapping[str, Any]] = (
        {
            "filter": "filter:tasks:predictions_model_versions",
            "operator": "contains",
            "type": "List",
            "value": [version],
        },
        # Label Studio looks for drafts only where it has to filter by them
        {
            "filter": "filter:tasks:draft_exists",
            "operator": "equal",
            "type": "Boolean",
            "value": has_draft,
        },
        {"filter": "filter:tasks:id", "operator": "greater", "type": "Number", "value": after},
    )
    return orjson.dumps({"filters": {"conjunction": "and", "items": conditions}}).decode()


def _task_versions(item: Mapping[str, Any], *, has_draft: bool) -> TaskVersions:
    shown = item["predictions_model_versions"]
    return TaskVersions(
        task_id=int(item["id"]),
        updated_at=_moment(item["updated_at"]),
        has_draft=has_draft,
        versions=frozenset(shown.split(",") if isinstance(shown, str) else shown or ()),
    )


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
