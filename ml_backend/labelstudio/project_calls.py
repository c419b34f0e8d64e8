"""What we ask of Label Studio about itself, its projects and their tasks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx
import structlog

from ml_backend.domain import Task
from ml_backend.errors import BadRequest, LabelStudioError
from ml_backend.labelstudio.annotation_rows import parse_annotation, parse_labelled_task
from ml_backend.labelstudio.connection import Connection
from ml_backend.labelstudio.rows import ProjectInfo, parse_project
from ml_backend.labelstudio.transport import failures_as_sentences, read_answer
from ml_backend.learning import Annotation, LabelledTask

Item = TypeVar("Item")

TASKS_PER_REQUEST = 200  # their ids travel in the address


log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class AnnotatedTask:
    """A task, and how many annotations it has."""

    task: LabelledTask
    annotations: int  # skipped ones not counted


class ProjectCalls(Connection):
    """Projects and tasks, read without side effects but for `update_project`.

    A project with the old setting `evaluate_predictions_automatically` is the exception: when its
    tasks are listed, Label Studio asks the backend for predictions of those that have none.
    """

    # Who and what

    def version(self) -> str:
        """Return Label Studio's version, e.g. "1.23.2"; asks without the key.

        Raises:
            LabelStudioError: also when something else than Label Studio answers there.
        """
        with failures_as_sentences(self.url, self._api_key):
            answer = read_answer(httpx.get(f"{self.url}/api/version/", timeout=self._timeout_s))
        release = answer.get("release") if isinstance(answer, dict) else None
        if release is None:
            raise LabelStudioError(
                f"{self.url} did not answer like Label Studio; correct LABEL_STUDIO_URL"
            )
        return str(release)

    def user(self) -> str:
        """Return the e-mail address of the key's owner; the cheapest check of a key."""
        return str(self.ask("GET", "api/current-user/whoami").get("email"))

    def legacy_tokens_enabled(self) -> bool:
        """Return whether the organization accepts legacy tokens."""
        return bool(self.ask("GET", "api/jwt/settings").get("legacy_api_tokens_enabled"))

    # Projects and tasks

    def projects(self) -> list[ProjectInfo]:
        """Return all projects that the key's owner can see."""
        found: list[ProjectInfo] = []
        page: dict[str, Any] = {"next": True}
        number = 0
        while page["next"]:
            number += 1
            page = self.ask("GET", "api/projects/", params={"page": number, "page_size": 100})
            found += [parse_project(item) for item in page["results"]]
        return found

    def project(self, project_id: int) -> ProjectInfo:
        """Return one project."""
        return parse_project(self.ask("GET", f"api/projects/{project_id}/"))

    def find_project(self, name: str) -> ProjectInfo:
        """Return the project with this number or exact title.

        Raises:
            LabelStudioError: when there is none, or several with this title.
        """
        if name.isdecimal():
            return self.project(int(name))
        projects = self.projects()
        matches = [project for project in projects if project.title == name]
        if len(matches) == 1:
            return matches[0]
        if matches:
            numbers = ", ".join(str(project.id) for project in matches)
            raise LabelStudioError(f"Several projects are called {name!r}; name one of {numbers}")
        titles = ", ".join(f"{project.id} {project.title!r}" for project in projects) or "none"
        raise LabelStudioError(f"There is no project {name!r}; Label Studio has: {titles}")

    def update_project(self, project_id: int, **fields: Any) -> ProjectInfo:
        """Change fields of a project, by Label Studio's names for them."""
        return parse_project(self.ask("PATCH", f"api/projects/{project_id}/", json=fields))

    def tasks(self, project_id: int) -> Iterator[Task]:
        """Yield the tasks of a project, in order, without annotations and predictions."""
        number, seen = 0, 0
        while True:
            number += 1
            page = self._list_tasks(project_id, include="id,data", page=number)
            for item in page["tasks"]:
                yield Task(id=int(item["id"]), data=item["data"])
            seen += len(page["tasks"])
            if seen >= int(page["total"]) or not page["tasks"]:
                return

    def unannotated_tasks(self, project_id: int, *, limit: int) -> list[Task]:
        """Return tasks that nobody has annotated, in order, at most `limit`."""
        query = _query([_condition("total_annotations", "equal", "Number", 0)])
        found: list[Task] = []
        number = 0
        while len(found) < limit:
            number += 1
            page = self._list_tasks(project_id, include="id,data", page=number, query=query)
            found += [Task(id=int(item["id"]), data=item["data"]) for item in page["tasks"]]
            if len(found) >= int(page["total"]) or not page["tasks"]:
                break
        return found[:limit]

    def annotated_tasks(
        self, project_id: int, *, changed_since: float | None = None
    ) -> Iterator[AnnotatedTask]:
        """Yield tasks that people have annotated, in order, without what they drew.

        Args:
            project_id: Whose.
            changed_since: Only those that anything happened to since then, by Label Studio's
                clock, and then also those without an annotation (any more).
        """
        if changed_since is None:
            wanted = _condition("total_annotations", "greater", "Number", 0)
        else:
            moment = datetime.fromtimestamp(changed_since, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            wanted = _condition("updated_at", "greater", "Datetime", moment)
        last = 0
        while True:
            # by number and not by page: a task that leaves meanwhile would push another one over
            # the edge of a page, and it would count as deleted
            conditions = [wanted, _condition("id", "greater", "Number", last)]
            page = self._list_tasks(
                project_id, include="id,data,total_annotations", query=_query(conditions)
            )
            for item in page["tasks"]:
                yield AnnotatedTask(
                    task=parse_labelled_task(item), annotations=int(item["total_annotations"] or 0)
                )
            if len(page["tasks"]) >= int(page["total"]) or not page["tasks"]:
                return
            last = int(page["tasks"][-1]["id"])

    def annotations(self, task_id: int) -> list[Annotation]:
        """Return the annotations of a task, without skipped ones; empty when the task is gone."""
        try:
            rows = self.ask("GET", f"api/tasks/{task_id}/annotations/")
        except LabelStudioError as error:
            if error.status == 404:
                return []
            raise
        found = []
        for row in rows:
            try:
                found.append(parse_annotation(row, heard_at=0.0, task_id=task_id))
            except BadRequest as error:
                log.warning("annotation left out", task=task_id, reason=error.message)
        return found

    def prediction_version(self, prediction_id: int) -> str | None:
        """Return the version that made a prediction, None when it is gone or has none."""
        try:
            row = self.ask("GET", f"api/predictions/{prediction_id}/")
        except LabelStudioError as error:
            if error.status == 404:
                return None
            raise
        version = row.get("model_version") if isinstance(row, dict) else None
        return version if isinstance(version, str) and version else None

    def existing_tasks(self, project_id: int, task_ids: Iterable[int]) -> set[int]:
        """Return those of `task_ids` that the project has."""
        found: set[int] = set()
        for chunk in chunks_of(list(task_ids), TASKS_PER_REQUEST):
            selection = {"selectedItems": {"all": False, "included": chunk}}
            page = self._list_tasks(project_id, include="id", query=json.dumps(selection))
            found.update(int(item["id"]) for item in page["tasks"])
        return found

    def tasks_with_prediction(
        self, project_id: int, task_ids: Iterable[int], version: str
    ) -> set[int]:
        """Return those of `task_ids` that hold a prediction of this version.

        Label Studio filters, so the predictions themselves (megabytes each) stay there.
        """
        found: set[int] = set()
        for chunk in chunks_of(list(task_ids), TASKS_PER_REQUEST):
            selection = {
                "filters": {
                    "conjunction": "and",
                    "items": [
                        {
                            "filter": "filter:tasks:predictions_model_versions",
                            "operator": "contains",
                            "type": "List",
                            "value": [version],
                        }
                    ],
                },
                "selectedItems": {"all": False, "included": chunk},
            }
            page = self._list_tasks(
                project_id, include="id,predictions_model_versions", query=json.dumps(selection)
            )
            # "contains" also finds longer versions, so compare them to the letter
            found.update(
                int(item["id"])
                for item in page["tasks"]
                if version in _versions(item["predictions_model_versions"])
            )
        return found

    def _list_tasks(self, project_id: int, **params: Any) -> Any:
        paging = {"page_size": TASKS_PER_REQUEST, "resolve_uri": "false"}
        return self.ask("GET", "api/tasks/", params={"project": project_id, **paging, **params})


def chunks_of(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _versions(shown: str | list[str] | None) -> set[str]:
    return set(shown.split(",") if isinstance(shown, str) else shown or ())


def _condition(column: str, operator: str, kind: str, value: Any) -> dict[str, Any]:
    return {
        "filter": f"filter:tasks:{column}",
        "operator": operator,
        "type": kind,
        "value": value,
    }


def _query(conditions: list[dict[str, Any]]) -> str:
    return json.dumps({"filters": {"conjunction": "and", "items": conditions}})
