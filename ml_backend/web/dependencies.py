"""What the web process is made of; `bootstrap` fills it in, tests with fakes."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ml_backend.domain import DefaultModels, LabelConfig, ProjectKey, Task
from ml_backend.errors import EngineError
from ml_backend.service.model_desk import ModelDesk
from ml_backend.service.session_debug import SessionDebugger
from ml_backend.service.session_starts import SessionStarter
from ml_backend.service.sessions import TrainingDesk
from ml_backend.service.toolkit_releasing import ToolkitReleasing
from ml_backend.service.versions import VersionDesk
from ml_backend.store.census import CensusTaker
from ml_backend.store.components import Components
from ml_backend.store.datasets import Datasets
from ml_backend.store.events import Events
from ml_backend.store.idempotency import IdempotencyKeys
from ml_backend.store.projects import Projects
from ml_backend.store.readiness import RecordsState
from ml_backend.store.releases import Releases
from ml_backend.store.tokens import Tokens
from ml_backend.store.versions import Versions


@dataclass(frozen=True, kw_only=True)
class EngineCall:
    """One request to the engine."""

    release: str  # version string
    project: ProjectKey
    tasks: Sequence[Task]
    label_config: str  # XML that the release was made from
    budget_s: float  # seconds within which the engine must answer
    context: Mapping[str, Any] | None = None  # what a person draws, for toolkit classes


class EngineAnswer(Protocol):
    """An answer of the engine that arrives piece by piece; close it after use."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers, names in small letters."""
        ...

    def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives.

        Raises:
            EngineBrokeOff: the engine went away in the middle.
        """
        ...

    async def close(self) -> None:
        """Let the connection go, whatever has not arrived."""
        ...


class EngineBrokeOff(EngineError):
    """The engine went away in the middle of its answer; see its log."""


class EngineClient(Protocol):
    """The way to the engine process."""

    async def predict(self, call: EngineCall) -> bytes:
        """Return the engine's answer as it came: JSON, {"results": [entry or {} per task]}.

        Raises:
            EngineUnavailable: it cannot be reached; it may be starting, so ask again.
            EngineBrokeOff: it went away meanwhile; another may take its place, so ask once more.
            EngineError: it failed; asking again will not help.
        """
        ...

    async def ask(
        self,
        path: str,
        *,
        content: bytes | AsyncIterable[bytes],
        headers: Mapping[str, str],
        budget_s: float,
    ) -> EngineAnswer:
        """Send a POST to another route of the engine and return its answer once it begins.

        Args:
            path: Such as "/infer".
            content: The body.
            headers: Its content type, and more where the route wants more.
            budget_s: Seconds within which the answer must begin, and each piece of it arrive.

        Raises:
            EngineUnavailable, EngineBrokeOff: as `predict`.
            BackendError: what the engine refused with, of the same class.
        """
        ...

    async def look(self, path: str, *, timeout_s: float) -> bytes | None:
        """Return what a GET of the engine answers, None where it does not in time.

        Args:
            path: Such as "/health".
            timeout_s: For all of it, from the connection to the last byte.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


@dataclass(frozen=True, kw_only=True)
class WebDependencies:
    """Settings and collaborators of the web process."""

    models: DefaultModels  # what the settings name
    revision: str  # of the post-processing
    program_version: str
    predict_budget_s: float
    max_request_bytes: int
    infer_budget_s: float  # that one request to infer may take
    max_model_bytes: int  # of a file of weights that people upload
    uploads_folder: Path  # on whose disk such a file is kept until an engine has it
    label_studio_url: str | None  # origin of projects that no /setup has introduced
    webhook_secret: str | None = field(default=None, repr=False)
    basic_auth: tuple[str, str] | None = field(default=None, repr=False)  # user, password
    parse_label_config: Callable[[str], LabelConfig]  # raises ConfigError
    projects: Projects
    components: Components
    releases: Releases
    versions: Versions
    version_desk: VersionDesk
    model_desk: ModelDesk
    training: TrainingDesk
    starter: SessionStarter
    debugger: SessionDebugger
    datasets: Datasets
    events: Events
    tokens: Tokens
    idempotency: IdempotencyKeys
    records: Callable[[], RecordsState]  # raises StoreError
    census: CensusTaker
    engine: EngineClient
    toolkit: ToolkitReleasing | None = None  # where a toolkit class is served instead of models
    poll_s: float = 0.5  # between two looks for an engine that is starting
    stopping: threading.Event = field(default_factory=threading.Event)  # the process is to end
