"""A session of a toolkit class: `fit` for every event of a project that waits, one by one."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from ml_backend.domain import ProjectKey
from ml_backend.errors import BackendError, StoreError, ToolkitError
from ml_backend.hosting.failures import guarded
from ml_backend.hosting.instances import make_instance
from ml_backend.hosting.loading import ToolkitClass
from ml_backend.hosting.ports import making_for
from ml_backend.service.toolkit_releasing import ToolkitReleasing
from ml_backend.store.events import Event, Events, EventState
from ml_backend.store.projects import Projects
from ml_backend.store.waiting_events import WaitingEvents

MOST_DEATHS = 3  # of the process while it was at the same event; then that is passed over
LINGER_S = 5.0  # for the next event: a process takes seconds to start
_POLL_S = 0.25

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class FitRecords:
    """What a session reads and writes."""

    events: Events
    waiting: WaitingEvents
    projects: Projects
    releasing: ToolkitReleasing


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What came of a session."""

    calls: int  # of fit
    failures: tuple[str, ...]  # a sentence for each call that failed
    version: str | None  # that the project serves since


class FitRun:
    """Works through the events of one project."""

    def __init__(
        self,
        toolkit_class: ToolkitClass,
        records: FitRecords,
        project: ProjectKey,
        *,
        session_id: str,
        progress: Mapping[str, Any],
        note: Callable[[Mapping[str, Any]], None],
        check: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Go on with what an earlier process of the session has noted.

        Args:
            toolkit_class: Whose `fit`.
            records: Of events and projects.
            project: Whose events.
            session_id: Under which they are fitted.
            progress: As noted last.
            note: Writes how far it has come; raises SessionLost, StoreError.
            check: Breaks off where that is wanted, between two events.
            clock: Seconds.
            sleep: Waits.
        """
        self._class = toolkit_class
        self._own = records
        self._project = project
        self._session_id = session_id
        self._progress = dict(progress)
        self._note = note
        self._check = check
        self._clock = clock
        self._sleep = sleep
        self._failures: list[str] = []
        self._version: str | None = None

    def run(self) -> Fitted:
        """Call `fit` until no event waits any more.

        Raises:
            SessionLost, StoreError
        """
        idle_since: float | None = None
        while True:
            self._check()
            event = self._own.waiting.next(self._project)
            if event is not None:
                idle_since = None
                self._work_on(event)
                continue
            now = self._clock()
            idle_since = now if idle_since is None else idle_since
            if now - idle_since >= LINGER_S or not self._progress.get("calls"):
                break
            self._sleep(_POLL_S)
        return Fitted(
            calls=int(self._progress.get("calls", 0)),
            failures=tuple(self._failures),
            version=self._version,
        )

    def _work_on(self, event: Event) -> None:
        if event.action not in self._class.train_events:
            self._finish(event, EventState.DONE, f"{self._class.name} fits no such events.")
            return
        begun = 1
        if self._progress.get("event") == event.job:
            begun += int(self._progress.get("begun", 0))
        if begun > MOST_DEATHS:
            self._fail(
                event,
                f"fit() of {self._class.name} ended its process {MOST_DEATHS} times at this event; "
                "the trainer's log may say why.",
            )
            return
        self._write(phase="fit", event=event.job, begun=begun)
        try:
            self._fit(event)
        except StoreError:
            raise
        except BackendError as error:
            log.warning("fit failed", job=event.job, action=event.action, reason=error.message)
            self._fail(event, error.message)
        except BaseException:  # it is told to go, which is no death
            with contextlib.suppress(StoreError):
                self._write(begun=begun - 1)
            raise
        else:
            self._finish(event, EventState.DONE, f"fit() of {self._class.name} was called.")

    def _fit(self, event: Event) -> None:
        data = json.loads(event.payload)  # the ledger has read it already
        data.pop("action", None)
        instance = make_instance(self._class, self._project, self._label_config(data))
        started = self._clock()
        with making_for(self._project):
            guarded(
                f"fit() of {self._class.name}",
                self._class.folder,
                lambda: instance.fit(event.action, data),
            )
        log.info(
            "fitted",
            job=event.job,
            action=event.action,
            project=str(self._project),
            seconds=round(self._clock() - started, 3),
        )

    def _label_config(self, data: Mapping[str, Any]) -> str:
        said = data.get("project")
        label_config = said.get("label_config") if isinstance(said, dict) else None
        if isinstance(label_config, str) and label_config:
            return label_config
        known = self._own.projects.get(self._project)
        if known is None:
            raise ToolkitError(
                f"The label config of project {self._project.project_id} is not known here; "
                "connect it with `ml-backend connect`."
            )
        return known.label_config

    def _fail(self, event: Event, message: str) -> None:
        self._failures.append(message)
        self._finish(event, EventState.FAILED, message)

    def _finish(self, event: Event, state: EventState, message: str) -> None:
        self._version = self._refreshed()
        self._own.events.finish(event.job, state, message=message, session=self._session_id)
        called = event.action in self._class.train_events
        calls = int(self._progress.get("calls", 0)) + called
        self._write(event=None, begun=0, calls=calls, tries=0)  # it got further

    def _refreshed(self) -> str | None:
        """Have the project serve what the class has set; return its version."""
        active = self._own.releasing.releases.active(self._project)
        if active is None:  # no /setup yet, whose answer it will be
            return None
        now = self._own.releasing.refresh(self._project, active)
        if now.version != active.version:
            log.info("toolkit class has a new version", version=now.version)
        return now.version

    def _write(self, **progress: Any) -> None:
        self._progress.update(progress)
        self._note(self._progress)
