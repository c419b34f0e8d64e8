"""Registers our backend in a Label Studio project, so that everything works afterwards.

The backend's title is kept equal to the version that our /setup answers: only then does Label
Studio show scores and sort tasks by uncertainty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import unquote

from ml_backend.errors import LabelStudioError
from ml_backend.labelstudio.backend_address import find_backend
from ml_backend.labelstudio.rows import BasicAuth, ConnectedBackend, ProjectInfo, Webhook
from ml_backend.labelstudio.transport import BOTH_GUARDS_OFF
from ml_backend.labelstudio.webhooks import orphaned, webhook_headers, webhook_url
from ml_backend.service.checks import Check, any_failed, failed, ok, warning

FIRST_TITLE = "Cell backend"  # until /setup has said the version
ATTEMPTS = 3  # a page that loads meanwhile can put the old title back


class LabelStudio(Protocol):
    """The part of LabelStudioClient that connecting needs."""

    url: str

    def find_project(self, name: str) -> ProjectInfo: ...
    def project(self, project_id: int) -> ProjectInfo: ...
    def update_project(self, project_id: int, **fields: object) -> ProjectInfo: ...
    def backends(self, project_id: int) -> list[ConnectedBackend]: ...
    def create_backend(
        self, project_id: int, *, url: str, title: str, auth: BasicAuth | None
    ) -> ConnectedBackend: ...
    def update_backend(
        self, backend_id: int, *, project_id: int, url: str, title: str, auth: BasicAuth | None
    ) -> ConnectedBackend: ...
    def webhooks(self, project_id: int | None = None) -> list[Webhook]: ...
    def create_webhook(self, project_id: int, url: str, headers: Mapping[str, str]) -> Webhook: ...
    def update_webhook(self, webhook_id: int, headers: Mapping[str, str]) -> Webhook: ...
    def delete_webhook(self, webhook_id: int) -> None: ...


@dataclass(frozen=True, kw_only=True)
class BackendAddress:
    """How Label Studio reaches us and proves that it is Label Studio."""

    url: str  # as Label Studio reaches it, without a slash at the end
    auth: BasicAuth | None = field(default=None, repr=False)
    webhook_secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class ConnectReport:
    """What `connect` did, step by step."""

    steps: tuple[Check, ...]
    project: ProjectInfo | None  # None: not found
    version: str | None  # what our /setup answered; None: not connected

    @property
    def connected(self) -> bool:
        """Return whether every step went well enough."""
        return not any_failed(self.steps)


def connect(
    label_studio: LabelStudio,
    project: str,
    backend: BackendAddress,
    *,
    known_origin: Callable[[str], str | None] = lambda _: None,
) -> ConnectReport:
    """Register `backend` in the project with this number or title; run twice, nothing changes.

    Args:
        label_studio: as the owner of the project's token sees it.
        project: a number or a title.
        backend: where Label Studio finds us.
        known_origin: the address by which Label Studio introduced the project "<id>.<epoch>" to
            the backend, if it did; events must name the same one. It can differ from ours:
            http://localhost:8080 for people, http://label-studio:8080 for other containers.
    """
    try:
        found = label_studio.find_project(project)
    except LabelStudioError as error:
        return ConnectReport(steps=(failed("project", error.message),), project=None, version=None)
    steps = [ok("project", f"Project {found.id}, {found.title!r}, with {found.task_count} tasks")]
    row, step = _register(label_studio, found.id, backend)
    steps.append(step)
    if row is None:
        return ConnectReport(steps=tuple(steps), project=found, version=None)
    origin = known_origin(found.name_in_setup) or label_studio.url
    connection = _Connection(label_studio, found.id, row, backend, origin)
    for name, work in (
        ("predictions", connection.show_predictions),
        ("other backends", connection.be_the_first),
        ("webhook", connection.send_events),
        ("orphaned webhooks", connection.tidy_up),
    ):
        try:
            steps += work()
        except LabelStudioError as error:
            steps.append(failed(name, error.message))
    return ConnectReport(steps=tuple(steps), project=found, version=row.model_version or None)


def _register(
    label_studio: LabelStudio, project_id: int, backend: BackendAddress
) -> tuple[ConnectedBackend | None, Check]:
    """Return the backend's row with the version that /setup answered, and what was done."""
    name = "backend"
    try:
        row = _find_row(label_studio, project_id, backend.url)
        if row is not None:
            row = label_studio.update_backend(
                row.id, project_id=project_id, url=row.url, title=row.title, auth=backend.auth
            )
            return row, ok(name, f"Already connected at {row.url}; it answers {row.model_version}")
        row = label_studio.create_backend(
            project_id, url=backend.url, title=FIRST_TITLE, auth=backend.auth
        )
        return row, ok(name, f"Connected at {row.url}; it answers {row.model_version}")
    except LabelStudioError as error:
        # the guard on webhooks refuses after the row is saved: predictions work, events do not
        row = _find_row(label_studio, project_id, backend.url) if error.status == 403 else None
        if row is None:
            return None, _not_connected(error, backend.url)
        return row, warning(
            name,
            f"Label Studio answered 403 but saved the backend at {row.url}: predictions work, "
            "events do not",
            BOTH_GUARDS_OFF,
        )


def _find_row(label_studio: LabelStudio, project_id: int, url: str) -> ConnectedBackend | None:
    return find_backend(label_studio.backends(project_id), url)


def _not_connected(error: LabelStudioError, url: str) -> Check:
    """Return why Label Studio would not take the backend, in the backend's words if it has any."""
    refusal = re.search(r"/refused/([^\s\"<]+)", error.message)
    if refusal:
        # our /setup answers with an address that is a sentence: Label Studio shows nothing else
        sentence = unquote(refusal.group(1)).replace("_", " ")
        return failed("backend", f"The backend cannot serve this project: {sentence}")
    if "health check failed" not in error.message:
        return failed("backend", error.message)
    return failed(
        "backend",
        error.message,
        f"start it with `ml-backend serve`, and check that {url} is its address as seen from "
        "Label Studio (in a container, localhost is the container itself: name the machine or "
        "host.docker.internal, and start the backend with HOST=0.0.0.0)",
    )


class _Connection:
    """What remains to be done once the backend has a row."""

    def __init__(
        self,
        label_studio: LabelStudio,
        project_id: int,
        row: ConnectedBackend,
        backend: BackendAddress,
        origin: str,
    ) -> None:
        self._label_studio = label_studio
        self._project_id = project_id
        self._row = row
        self._backend = backend
        self._origin = origin

    def show_predictions(self) -> list[Check]:
        """Make title, version and what the project shows one and the same."""
        version = self._row.model_version
        if not version:
            return [
                failed("predictions", "The backend named no version; `ml-backend doctor` says why")
            ]
        for _ in range(ATTEMPTS):
            titled, shown = self._agreement(version)
            if titled and shown:
                return [ok("predictions", f"The project shows predictions of {version}")]
            if not titled:
                self._label_studio.update_backend(
                    self._row.id,
                    project_id=self._project_id,
                    url=self._row.url,
                    title=version,
                    auth=self._backend.auth,
                )
            if not shown:
                self._label_studio.update_project(
                    self._project_id, show_collab_predictions=True, model_version=version
                )
        return [
            failed(
                "predictions",
                f"Something keeps changing the project's model version away from {version}",
                "close Label Studio's settings pages and run `ml-backend connect` again",
            )
        ]

    def _agreement(self, version: str) -> tuple[bool, bool]:
        """Return whether the title is the version, and whether the project shows it."""
        row = _find_row(self._label_studio, self._project_id, self._row.url)
        project = self._label_studio.project(self._project_id)
        return (
            row is not None and row.title == version,
            project.shows_predictions and project.model_version == version,
        )

    def be_the_first(self) -> list[Check]:
        """Warn when another backend makes the predictions."""
        first = self._label_studio.backends(self._project_id)[0]
        if first.id == self._row.id:
            return []
        return [
            warning(
                "other backends",
                f"{first.title!r} at {first.url} is first in the project's list and makes all "
                "predictions",
                "remove it under Settings > Model",
            )
        ]

    def send_events(self) -> list[Check]:
        """Make or repair the webhook; remove further ones to the same address."""
        url = webhook_url(self._row.url)
        ours = webhook_headers(
            origin=self._origin,
            secret=self._backend.webhook_secret,
            auth=self._backend.auth,
        )
        here = [hook for hook in self._label_studio.webhooks(self._project_id) if hook.url == url]
        if here:
            done = self._complete_webhook(min(here, key=lambda hook: hook.id), ours)
            for extra in sorted(here, key=lambda hook: hook.id)[1:]:
                self._label_studio.delete_webhook(extra.id)
        else:
            self._label_studio.create_webhook(self._project_id, url, ours)
            done = "Made"
        steps = [ok("webhook", f"{done}: events go to {url}")]
        if self._backend.webhook_secret is None and self._backend.auth is None:
            steps.append(
                warning(
                    "webhook secret",
                    "Whoever reaches the backend can send it events",
                    "set WEBHOOK_SECRET for the backend and run `ml-backend connect` again",
                )
            )
        return steps

    def _complete_webhook(self, hook: Webhook, ours: Mapping[str, str]) -> str:
        headers = {**hook.headers, **ours}
        if hook.is_active and hook.sends_all_actions and hook.headers == headers:
            return "As it should be"
        self._label_studio.update_webhook(hook.id, headers)
        return "Set up"

    def tidy_up(self) -> list[Check]:
        """Remove webhooks of ours whose backend is gone; Label Studio leaves them behind."""
        lost = orphaned(
            self._label_studio.webhooks(self._project_id),
            self._label_studio.backends(self._project_id),
        )
        for hook in lost:
            self._label_studio.delete_webhook(hook.id)
        return [ok("orphaned webhooks", f"Removed the one to {hook.url}") for hook in lost]
