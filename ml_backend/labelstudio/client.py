"""Everything we ask of Label Studio, over label-studio-sdk.

Reads here have no side effects. `GET /api/ml` is not among them on purpose: Label Studio calls
the backend's /health and /setup for it and saves the backend's row again, which can undo a change
of its title that happens meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import structlog

from ml_backend.domain import Prediction, Task
from ml_backend.errors import LabelStudioError
from ml_backend.labelstudio.rows import (
    BasicAuth,
    ConnectedBackend,
    ProjectInfo,
    Webhook,
    all_events,
    auth_fields,
    parse_backend,
    parse_project,
    parse_webhook,
)
from ml_backend.labelstudio.transport import (
    TIMEOUT_S,
    connect_sdk,
    failures_as_sentences,
    read_answer,
)

if TYPE_CHECKING:
    from label_studio_sdk.base_client import LabelStudioBase

Item = TypeVar("Item")

log = structlog.get_logger(__name__)

PREDICTIONS_PER_REQUEST = 100  # a larger one keeps annotators waiting for seconds
TASKS_PER_REQUEST = 200  # their ids travel in the address


class LabelStudioClient:
    """One Label Studio, as the owner of `api_key` (legacy or personal access token) sees it.

    Every method raises LabelStudioError with a sentence that says what to do.
    """

    def __init__(self, url: str, api_key: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url.rstrip("/")
        self._api_key = api_key
        self._timeout_s = timeout_s

    @cached_property
    def _sdk(self) -> LabelStudioBase:
        # made at the first call, so that a process that never calls does not import the SDK
        return connect_sdk(self.url, self._api_key, timeout_s=self._timeout_s)

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        """Return the JSON answer to a request that carries our credentials."""
        with failures_as_sentences(self.url, self._api_key):
            # the SDK's typed calls lack some of these routes and drop fields of others
            transport = self._sdk._client_wrapper.httpx_client
            return read_answer(transport.request(path, method=method, **options))

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
        return str(self._ask("GET", "api/current-user/whoami").get("email"))

    def legacy_tokens_enabled(self) -> bool:
        """Return whether the organization accepts legacy tokens."""
        return bool(self._ask("GET", "api/jwt/settings").get("legacy_api_tokens_enabled"))

    # Projects and tasks

    def projects(self) -> list[ProjectInfo]:
        """Return all projects that the key's owner can see."""
        found: list[ProjectInfo] = []
        page: dict[str, Any] = {"next": True}
        number = 0
        while page["next"]:
            number += 1
            page = self._ask("GET", "api/projects/", params={"page": number, "page_size": 100})
            found += [parse_project(item) for item in page["results"]]
        return found

    def project(self, project_id: int) -> ProjectInfo:
        """Return one project."""
        return parse_project(self._ask("GET", f"api/projects/{project_id}/"))

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
        return parse_project(self._ask("PATCH", f"api/projects/{project_id}/", json=fields))

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

    def existing_tasks(self, project_id: int, task_ids: Iterable[int]) -> set[int]:
        """Return those of `task_ids` that the project has."""
        found: set[int] = set()
        for chunk in _chunks(list(task_ids), TASKS_PER_REQUEST):
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
        for chunk in _chunks(list(task_ids), TASKS_PER_REQUEST):
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
        return self._ask("GET", "api/tasks/", params={"project": project_id, **paging, **params})

    # Predictions

    def import_predictions(self, project_id: int, items: Sequence[tuple[int, Prediction]]) -> int:
        """Store (task id, prediction) pairs and return how many Label Studio accepted.

        Rows are added, never replaced: ask `tasks_with_prediction` first. Label Studio drops
        invalid ones without a word; fewer accepted than sent is logged.
        """
        created = 0
        for chunk in _chunks(items, PREDICTIONS_PER_REQUEST):
            rows = [{"task": task_id, **item.to_json()} for task_id, item in chunk]
            answer = self._ask("POST", f"api/projects/{project_id}/import/predictions", json=rows)
            created += int(answer["created"])
        if created < len(items):
            log.warning(
                "Label Studio dropped predictions as invalid; its log says why",
                project=project_id,
                sent=len(items),
                stored=created,
            )
        return created

    # ML backends

    def backends(self, project_id: int) -> list[ConnectedBackend]:
        """Return the backends of a project; the first one makes all predictions."""
        answer = self._ask(
            "GET",
            f"api/projects/{project_id}/model-versions",
            params={"extended": "true", "include_live_models": "true"},
        )
        return [parse_backend(item) for item in answer["live"] or []]

    def create_backend(
        self, project_id: int, *, url: str, title: str, auth: BasicAuth | None
    ) -> ConnectedBackend:
        """Register a backend; Label Studio calls its /health and /setup meanwhile."""
        row = {"project": project_id, "url": url, "title": title, **auth_fields(auth)}
        return parse_backend(self._ask("POST", "api/ml/", json=row))

    def update_backend(
        self,
        backend_id: int,
        *,
        project_id: int,
        url: str,
        title: str,
        auth: BasicAuth | None,
    ) -> ConnectedBackend:
        """Change a backend; its whole address is needed, Label Studio fails without it."""
        row = {"project": project_id, "url": url, "title": title, **auth_fields(auth)}
        return parse_backend(self._ask("PATCH", f"api/ml/{backend_id}", json=row))

    # Webhooks

    def webhooks(self, project_id: int | None = None) -> list[Webhook]:
        """Return the webhooks of a project, or of the whole organization."""
        params = {} if project_id is None else {"project": project_id}
        return [parse_webhook(item) for item in self._ask("GET", "api/webhooks/", params=params)]

    def create_webhook(self, project_id: int, url: str, headers: Mapping[str, str]) -> Webhook:
        """Send all events of a project to `url`, with these headers."""
        row = {"project": project_id, "url": url, **all_events(headers)}
        return parse_webhook(self._ask("POST", "api/webhooks/", json=row))

    def update_webhook(self, webhook_id: int, headers: Mapping[str, str]) -> Webhook:
        """Set a webhook's headers, switch it on and let it send all events."""
        # a PATCH without the actions would clear them
        return parse_webhook(
            self._ask("PATCH", f"api/webhooks/{webhook_id}/", json=all_events(headers))
        )

    def delete_webhook(self, webhook_id: int) -> None:
        """Remove a webhook."""
        self._ask("DELETE", f"api/webhooks/{webhook_id}/")

    # Guards: requests that are refused in any case; what counts is how

    def refuses_backends_at(self, project_id: int, host: str) -> bool:
        """Return whether Label Studio's ML_BLOCK_LOCAL_IP keeps backends on `host` out.

        Nobody answers on the discard port, so nothing is ever registered.
        """
        row = {"project": project_id, "url": f"http://{host}:9", "title": "probe"}
        return self._is_forbidden("api/ml/", row)

    def refuses_webhooks_to(self, project_id: int, url: str) -> bool:
        """Return whether Label Studio's SSRF_PROTECTION_ENABLED keeps webhooks to `url` out.

        There is no such action, so nothing is ever made.
        """
        row = {"project": project_id, "url": url, "actions": ["NO_SUCH_ACTION"]}
        return self._is_forbidden("api/webhooks/", row)

    def _is_forbidden(self, path: str, row: Mapping[str, Any]) -> bool:
        try:
            self._ask("POST", path, json=row)
        except LabelStudioError as error:
            if error.status in (400, 403):
                return error.status == 403
            raise
        return False


def _chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _versions(shown: str | list[str] | None) -> set[str]:
    return set(shown.split(",") if isinstance(shown, str) else shown or ())
