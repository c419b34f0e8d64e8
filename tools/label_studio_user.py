"""What a person does in Label Studio, through the same requests that its pages send."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

UPLOADS_PER_REQUEST = 20


class LabelStudioUser:
    """A person who is logged in; every method returns Label Studio's answer."""

    def __init__(self, session: httpx.Client) -> None:
        self.session = session

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """Return the JSON answer.

        Raises:
            httpx.HTTPStatusError
        """
        answer = self.session.request(method, path, **options)
        if answer.is_error:
            raise httpx.HTTPStatusError(
                f"{method} {path}: {answer.status_code} {answer.text[:1000]}",
                request=answer.request,
                response=answer,
            )
        return answer.json() if answer.content else None

    def create_project(self, title: str, label_config: str, **fields: Any) -> int:
        """Return the number of a new project."""
        body = {"title": title, "label_config": label_config, **fields}
        return int(self.ask("POST", "/api/projects", json=body)["id"])

    def project(self, project: int) -> Mapping[str, Any]:
        """Return a project with all its settings."""
        return dict(self.ask("GET", f"/api/projects/{project}"))

    def upload(self, project: int, files: Sequence[Path]) -> None:
        """Upload image files, as the Import dialogue does; each becomes a task."""
        for start in range(0, len(files), UPLOADS_PER_REQUEST):
            parts = [
                (f"file{number}", (file.name, file.read_bytes()))
                for number, file in enumerate(files[start : start + UPLOADS_PER_REQUEST])
            ]
            self.ask("POST", f"/api/projects/{project}/import", files=parts)

    def import_tasks(self, project: int, data: Iterable[Mapping[str, Any]]) -> None:
        """Import tasks whose images lie elsewhere."""
        self.ask("POST", f"/api/projects/{project}/import", json=list(data))

    def task_ids(self, project: int) -> list[int]:
        """Return the numbers of all tasks, in order; predicts nothing."""
        params = {"project": project, "page_size": 1000, "include": "id"}
        return sorted(
            int(task["id"]) for task in self.ask("GET", "/api/tasks", params=params)["tasks"]
        )

    def open_task(self, project: int, task: int) -> Mapping[str, Any]:
        """Click a row of the Data Manager: predicts when the task has no prediction at all."""
        return dict(self.ask("GET", f"/api/tasks/{task}", params={"project": project}))

    def next_task(self, project: int) -> Mapping[str, Any]:
        """Click "Label All Tasks": predicts when there is none of the current version."""
        return dict(self.ask("GET", f"/api/projects/{project}/next"))

    def retrieve_predictions(self, project: int) -> Mapping[str, Any]:
        """Select all tasks and choose "Retrieve Predictions": one request for all of them."""
        return dict(
            self.ask(
                "POST",
                "/api/dm/actions",
                params={"id": "retrieve_tasks_predictions", "project": project},
                json={"selectedItems": {"all": True, "excluded": []}},
            )
        )

    def predictions(self, project: int) -> list[Mapping[str, Any]]:
        """Return all stored predictions of a project, in full."""
        return list(self.ask("GET", "/api/predictions", params={"project": project}))

    def submit(
        self, task: int, result: Sequence[Mapping[str, Any]], **fields: Any
    ) -> Mapping[str, Any]:
        """Submit an annotation."""
        body = {"result": list(result), "lead_time": 1.0, **fields}
        return dict(self.ask("POST", f"/api/tasks/{task}/annotations/", json=body))

    def delete_annotation(self, annotation: int) -> None:
        """Delete an annotation."""
        self.ask("DELETE", f"/api/annotations/{annotation}/")

    def allow_legacy_tokens(self, allowed: bool) -> None:
        """Switch legacy tokens on or off; they are off in a new organization."""
        wanted = {"legacy_api_tokens_enabled": allowed, "api_tokens_enabled": True}
        self.ask("POST", "/api/jwt/settings", json=wanted)

    def remove_backend(self, backend: int) -> None:
        """Remove an ML backend from its project."""
        self.ask("DELETE", f"/api/ml/{backend}")
