"""`doctor`, second half: Label Studio, and the way from it to us and back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import httpx

from ml_backend.domain import FetchedFile, LabelConfig, Task, is_personal_access_token
from ml_backend.errors import BackendError, LabelStudioError
from ml_backend.labelstudio.backend_address import find_backend, is_same_address
from ml_backend.labelstudio.rows import BasicAuth, ConnectedBackend, ProjectInfo, Webhook
from ml_backend.labelstudio.transport import BOTH_GUARDS_OFF
from ml_backend.labelstudio.values import read_value
from ml_backend.labelstudio.webhooks import (
    ORIGIN_HEADER,
    SECRET_HEADER,
    header,
    orphaned,
    webhook_headers,
    webhook_url,
)
from ml_backend.service.checks import Check, failed, ok, warning
from ml_backend.settings import Settings, is_loopback

CONNECT = "ml-backend connect {project} --url {url}"
IN_A_CONTAINER = Path("/.dockerenv")


class LabelStudio(Protocol):
    """The part of LabelStudioClient that the doctor needs."""

    url: str

    def version(self) -> str: ...
    def user(self) -> str: ...
    def find_project(self, name: str) -> ProjectInfo: ...
    def tasks(self, project_id: int) -> Iterator[Task]: ...
    def backends(self, project_id: int) -> list[ConnectedBackend]: ...
    def webhooks(self, project_id: int | None = None) -> list[Webhook]: ...
    def refuses_backends_at(self, project_id: int, host: str) -> bool: ...
    def refuses_webhooks_to(self, project_id: int, url: str) -> bool: ...


def check_address(settings: Settings) -> Check:
    """Is it said where Label Studio is?"""
    name = "LABEL_STUDIO_URL"
    if settings.label_studio_url is None:
        return warning(
            name,
            "LABEL_STUDIO_URL is not set: images come from whichever address Label Studio names "
            "itself, and predictions that are finished late cannot be delivered",
            "set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY",
        )
    return ok(name, f"Label Studio is at {settings.label_studio_url}")


def check_reachable(label_studio: LabelStudio, *, container_mark: Path = IN_A_CONTAINER) -> Check:
    """Does Label Studio answer? Inside a container, localhost is where nobody looks for it."""
    name = "Label Studio"
    try:
        return ok(name, f"Version {label_studio.version()} answers")
    except LabelStudioError as error:
        host = urlsplit(label_studio.url).hostname or ""
        if is_loopback(host) and container_mark.exists():
            return failed(
                name,
                f"Nothing answers at {label_studio.url}, and {host} is this container itself",
                "set LABEL_STUDIO_URL to the service's name or to http://host.docker.internal:8080",
            )
        return failed(name, error.message)


def check_key(settings: Settings, label_studio: LabelStudio) -> Check:
    """Is there an API key, of which kind, and does it open the door?"""
    name = "API key"
    if settings.label_studio_api_key is None:
        return warning(
            name,
            "LABEL_STUDIO_API_KEY is not set: the token that Label Studio sends is used, which is "
            "a legacy token and refused by new organizations",
            "set it to a personal access token (Account & Settings > Personal Access Token)",
        )
    personal = is_personal_access_token(settings.label_studio_api_key.get_secret_value())
    kind = "personal access token" if personal else "legacy token"
    try:
        return ok(name, f"The {kind} works for {label_studio.user()}")
    except LabelStudioError as error:
        return failed(name, error.message)


class ProjectChecks:
    """What can only be told for one project."""

    def __init__(
        self,
        label_studio: LabelStudio,
        project: ProjectInfo,
        *,
        backend_url: str,
        webhook_secret: str | None,
        auth: BasicAuth | None,
    ) -> None:
        self._label_studio = label_studio
        self._project = project
        self._url = backend_url.rstrip("/")
        self._secret = webhook_secret
        self._auth = auth
        self._remedy = CONNECT.format(project=project.id, url=self._url)

    def label_config(self, parse: Callable[[str], LabelConfig]) -> list[Check]:
        """Can masks and classes feed the label config?"""
        name = "label config"
        try:
            config = parse(self._project.label_config)
        except BackendError as error:
            return [failed(name, error.message, "label_configs/ has one for each use")]
        fed = [f"{control.tag} {control.name!r}" for control in config.controls]
        fed += [f"Choices {control.name!r}" for control in config.choices]
        return [ok(name, f"Fed are {', '.join(fed)}"), *(warning(name, w) for w in config.warnings)]

    def guards(self) -> list[Check]:
        """Does Label Studio refuse our address? Both questions leave no trace."""
        host = urlsplit(self._url).hostname or ""
        checks = []
        for name, effect, refused in (
            (
                "ML_BLOCK_LOCAL_IP",
                "backends cannot be connected",
                self._label_studio.refuses_backends_at(self._project.id, host),
            ),
            (
                "SSRF_PROTECTION_ENABLED",
                "webhooks are not made and no event arrives",
                self._label_studio.refuses_webhooks_to(self._project.id, webhook_url(self._url)),
            ),
        ):
            checks.append(
                failed(name, f"The guard keeps {host} out: {effect}", BOTH_GUARDS_OFF)
                if refused
                else ok(name, f"The guard lets {host} through")
            )
        return checks

    def connection(self) -> list[Check]:
        """Are we registered, first, in working order, and shown?"""
        name = "connection"
        rows = self._label_studio.backends(self._project.id)
        ours = find_backend(rows, self._url)
        if ours is None:
            others = ", ".join(row.url for row in rows) or "none"
            sentence = f"No backend with the address {self._url} is connected (there is: {others})"
            return [failed(name, sentence, self._remedy)]
        if ours.error:
            return [failed(name, f"Label Studio says: {ours.error}", self._remedy)]
        if rows[0].id != ours.id:
            return [
                failed(
                    name,
                    f"{rows[0].title!r} is first in the list and makes all predictions",
                    "remove it under Settings > Model",
                )
            ]
        shown = self._project.shows_predictions and self._project.model_version == ours.title
        if not shown or ours.title != ours.model_version:
            return [
                warning(
                    name,
                    f"The project shows {self._project.model_version or 'no predictions'}, the "
                    f"backend is called {ours.title} and answers {ours.model_version}: these "
                    "must be the same, or scores and pre-annotations are missing",
                    self._remedy,
                )
            ]
        return [ok(name, f"Connected at {ours.url}, shows {ours.model_version}")]

    def webhook(self, http: httpx.Client) -> list[Check]:
        """Do events find us, with the secret? One harmless event is sent."""
        name, url = "webhook", webhook_url(self._url)
        hooks = self._label_studio.webhooks(self._project.id)
        ours = next((hook for hook in hooks if is_same_address(hook.url, url)), None)
        if ours is None:
            return [failed(name, f"No webhook sends the project's events to {url}", self._remedy)]
        if not (ours.is_active and ours.sends_all_actions):
            return [failed(name, "The webhook is switched off or sends few events", self._remedy)]
        if not self._carries_our_headers(ours):
            return [
                failed(
                    name,
                    "The webhook lacks our headers or has an old secret or password",
                    self._remedy,
                )
            ]
        return [
            ok(name, f"Events go to {ours.url}"),
            self._return_path(http, url),
            *self._orphans(hooks),
        ]

    def _carries_our_headers(self, hook: Webhook) -> bool:
        ours = webhook_headers(origin="", secret=self._secret, auth=self._auth)
        del ours[ORIGIN_HEADER]  # may be any of Label Studio's addresses
        return (
            header(hook, ORIGIN_HEADER) is not None
            and header(hook, SECRET_HEADER) == self._secret
            and all(header(hook, name) == value for name, value in ours.items())
        )

    def _return_path(self, http: httpx.Client, url: str) -> Check:
        name = "webhook return path"
        headers = webhook_headers(
            origin=self._label_studio.url, secret=self._secret, auth=self._auth
        )
        started = time.monotonic()
        try:
            answer = http.post(url, json={"action": "DOCTOR"}, headers=headers)
        except httpx.HTTPError as error:
            return failed(name, f"An event cannot be sent to {url} ({error})")
        if answer.is_error:
            return failed(
                name,
                f"The backend refused an event with {answer.status_code}",
                "give `serve` and `connect` the same WEBHOOK_SECRET, BASIC_AUTH_USER and "
                "BASIC_AUTH_PASS",
            )
        took_ms = (time.monotonic() - started) * 1000
        if took_ms > 1000:
            return failed(
                name,
                f"The backend took {took_ms:.0f} ms, and Label Studio drops events after 1000 ms",
                "see its log",
            )
        return ok(name, f"An event is recorded in {took_ms:.0f} ms")

    def _orphans(self, hooks: list[Webhook]) -> list[Check]:
        lost = orphaned(hooks, self._label_studio.backends(self._project.id))
        return [
            warning(
                "orphaned webhooks",
                f"The webhook to {hook.url} belongs to a backend that is gone",
                self._remedy,
            )
            for hook in lost
        ]

    def image(
        self, parse: Callable[[str], LabelConfig], fetch: Callable[[str, int], FetchedFile]
    ) -> list[Check]:
        """Can we fetch the images of a task the way the engine does?"""
        name = "image"
        task = next(self._label_studio.tasks(self._project.id), None)
        if task is None:
            return [warning(name, "The project has no task to try", "import an image")]
        try:
            keys = sorted(
                {control.value_key for control in parse(self._project.label_config).served}
            )
        except BackendError:
            return []  # told by the label config's own check
        checks = []
        for key in keys:
            try:
                file = fetch(read_value(task.data, key), task.id)
            except BackendError as error:
                checks.append(failed(name, f"Task {task.id}, {key!r}: {error.message}"))
            else:
                size = f"{file.size / 1e6:.2f} MB"
                checks.append(ok(name, f"Task {task.id}, {key!r} was fetched: {size}"))
        return checks
