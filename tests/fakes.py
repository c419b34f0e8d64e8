"""Honest stand-ins for what lies outside the part under test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import orjson

from ml_backend.domain import Task
from ml_backend.errors import BackendError, EngineUnavailable, LabelStudioError
from ml_backend.labelstudio.rows import BasicAuth, ConnectedBackend, ProjectInfo, Webhook
from ml_backend.web.dependencies import EngineAnswer, EngineCall


@dataclass
class ManualClock:
    """A clock that stands still until it is told how far to go."""

    now: float = 1_800_000_000.0  # seconds since the epoch

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


def honest_answer(call: EngineCall) -> bytes:
    """Return one valid prediction per task."""
    region = {"id": "a", "type": "polygonlabels", "value": {"points": [[0, 0], [1, 0], [1, 1]]}}
    entry = {"result": [region], "score": 0.5, "model_version": call.release}
    return orjson.dumps({"results": [entry] * len(call.tasks)})


@dataclass
class FakeEngine:
    """An engine client whose answers and failures a test chooses; it notes every call."""

    answer: Callable[[EngineCall], bytes] = honest_answer
    failures: list[BackendError] = field(default_factory=list)  # raised first, one a call
    delay_s: float = 0.0
    calls: list[EngineCall] = field(default_factory=list)
    asked_answers: dict[str, EngineAnswer] = field(default_factory=dict)  # by path
    asked: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    looks: dict[str, bytes] = field(  # what a GET answers, by path; others are not answered
        default_factory=lambda: {"/health": b'{"device":"cpu","depth":0,"slots":2}'}
    )
    closed: bool = False

    async def predict(self, call: EngineCall) -> bytes:
        """Return the chosen answer, or fail as chosen."""
        self.calls.append(call)
        await asyncio.sleep(self.delay_s)
        if self.failures:
            raise self.failures.pop(0)
        return self.answer(call)

    async def ask(
        self,
        path: str,
        *,
        content: bytes | AsyncIterable[bytes],
        headers: Mapping[str, str],
        budget_s: float,
    ) -> EngineAnswer:
        """Return what a test has put into `asked_answers`, or fail: as chosen, else as away."""
        body = (
            content if isinstance(content, bytes) else b"".join([piece async for piece in content])
        )
        self.asked.append((path, dict(headers), body))
        if self.failures:
            raise self.failures.pop(0)
        if path not in self.asked_answers:
            raise EngineUnavailable
        return self.asked_answers[path]

    async def look(self, path: str, *, timeout_s: float) -> bytes | None:
        """Return what a test has put into `looks`."""
        await asyncio.sleep(min(self.delay_s, timeout_s))
        return self.looks.get(path) if self.delay_s < timeout_s else None

    async def close(self) -> None:
        """Note that it was closed."""
        self.closed = True


@dataclass
class FakeEngineAnswer:
    """An answer of an engine that a test has chosen."""

    body: Sequence[bytes]  # piece by piece
    headers: Mapping[str, str] = field(default_factory=dict)
    is_closed: bool = False

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the pieces."""
        for piece in self.body:
            yield piece

    async def close(self) -> None:
        """Note that it was closed."""
        self.is_closed = True


@dataclass
class FakeLabelStudio:
    """One project of a Label Studio that behaves as measured on 1.23.2."""

    setup_version: str = "cells-1-3fa9c2d1"  # what our /setup answers
    label_config: str = (
        '<View><Image name="image" value="$image"/><PolygonLabels name="cells" toName="image">'
        '<Label value="Cell"/></PolygonLabels></View>'
    )
    blocks_backends: bool = False  # ML_BLOCK_LOCAL_IP
    blocks_webhooks: bool = False  # SSRF_PROTECTION_ENABLED
    reverts: int = 0  # how often a page that loads meanwhile puts the old title back
    url: str = "http://localhost:8080"
    task_data: dict[str, object] = field(
        default_factory=lambda: {"image": "/data/upload/3/deadbeef-cells.png"}
    )
    writes: list[str] = field(default_factory=list)
    rows: list[ConnectedBackend] = field(default_factory=list)
    hooks: list[Webhook] = field(default_factory=list)
    own_project: ProjectInfo = field(init=False)

    def __post_init__(self) -> None:
        self.own_project = ProjectInfo(
            id=3,
            title="Cells",
            created_at=1_795_215_681,
            label_config=self.label_config,
            model_version="",
            shows_predictions=True,
            task_count=1,
        )

    def version(self) -> str:
        """Return its release."""
        return "1.23.2"

    def user(self) -> str:
        """Return the key's owner."""
        return "admin@example.com"

    def find_project(self, name: str) -> ProjectInfo:
        """Return the one project."""
        if name in ("3", "Cells"):
            return self.own_project
        raise LabelStudioError(f"There is no project {name!r}")

    def project(self, project_id: int) -> ProjectInfo:
        """Return the one project."""
        return self.find_project(str(project_id))

    def update_project(self, project_id: int, **fields: object) -> ProjectInfo:
        """Change what it shows."""
        self.writes.append("project")
        self.own_project = replace(
            self.project(project_id),
            shows_predictions=bool(fields["show_collab_predictions"]),
            model_version=str(fields["model_version"]),
        )
        return self.own_project

    def tasks(self, project_id: int) -> Iterator[Task]:
        """Yield its one task."""
        yield Task(id=7, data=self.task_data)

    def backends(self, project_id: int) -> list[ConnectedBackend]:
        """Return the rows."""
        return list(self.rows)

    def create_backend(
        self, project_id: int, *, url: str, title: str, auth: BasicAuth | None
    ) -> ConnectedBackend:
        """Make a row and its webhook, as the guards allow."""
        self.writes.append("create backend")
        if self.blocks_backends:
            raise LabelStudioError("URL resolves to a reserved network address", status=403)
        row = ConnectedBackend(
            id=len(self.rows) + 1,
            title=title,
            url=url.rstrip("/"),
            model_version=self.setup_version,
            basic_auth_user=auth.user if auth else None,
            is_interactive=False,
            error=None,
        )
        self.rows.append(row)
        if self.blocks_webhooks:
            raise LabelStudioError("URL resolves to a reserved network address", status=403)
        self.create_webhook(project_id, row.url + "/webhook", {})
        if not self.own_project.model_version:
            self.own_project = replace(self.own_project, model_version=title)
        return row

    def update_backend(
        self, backend_id: int, *, project_id: int, url: str, title: str, auth: BasicAuth | None
    ) -> ConnectedBackend:
        """Change a row; a project that shows its old title follows."""
        if self.blocks_backends:
            raise LabelStudioError("URL resolves to a reserved network address", status=403)
        index = next(i for i, row in enumerate(self.rows) if row.id == backend_id)
        old = self.rows[index]
        new = replace(old, title=title, url=url, model_version=self.setup_version)
        if new != old:
            self.writes.append("update backend")
        if self.own_project.model_version == old.title:
            self.own_project = replace(self.own_project, model_version=title)
        if new != old and self.reverts:
            self.reverts -= 1
            return new
        self.rows[index] = new
        return new

    def webhooks(self, project_id: int | None = None) -> list[Webhook]:
        """Return the webhooks."""
        return list(self.hooks)

    def create_webhook(self, project_id: int, url: str, headers: Mapping[str, str]) -> Webhook:
        """Make a webhook."""
        self.writes.append("create webhook")
        if self.blocks_webhooks:
            raise LabelStudioError("URL resolves to a reserved network address", status=403)
        hook = Webhook(
            id=max([0, *(hook.id for hook in self.hooks)]) + 1,
            project_id=project_id,
            url=url,
            headers=dict(headers),
            is_active=True,
            sends_all_actions=True,
        )
        self.hooks.append(hook)
        return hook

    def update_webhook(self, webhook_id: int, headers: Mapping[str, str]) -> Webhook:
        """Change a webhook."""
        self.writes.append("update webhook")
        index = next(i for i, hook in enumerate(self.hooks) if hook.id == webhook_id)
        self.hooks[index] = replace(
            self.hooks[index], headers=dict(headers), is_active=True, sends_all_actions=True
        )
        return self.hooks[index]

    def delete_webhook(self, webhook_id: int) -> None:
        """Remove a webhook."""
        self.writes.append("delete webhook")
        self.hooks = [hook for hook in self.hooks if hook.id != webhook_id]

    def refuses_backends_at(self, project_id: int, host: str) -> bool:
        """Return whether that guard is on."""
        return self.blocks_backends

    def refuses_webhooks_to(self, project_id: int, url: str) -> bool:
        """Return whether that guard is on."""
        return self.blocks_webhooks
