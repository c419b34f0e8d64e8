"""The trainer's standing work: from events to sessions that a worker is woken up for.

Two threads, since Label Studio may answer slowly while people go on annotating: one works events
into the ledger and asks the policy, the other reads Label Studio's API and starts what is queued.
Several trainers may do this at once: what counts is decided in the records.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from ml_backend.domain import ProjectKey
from ml_backend.errors import BackendError, SessionLost
from ml_backend.learning import Session, SessionState
from ml_backend.service.ledger import EventLedger
from ml_backend.service.planning import Planner
from ml_backend.service.policy import LOOK_AGAIN_S
from ml_backend.service.reconcile import Reconciler
from ml_backend.store.annotations import AnnotationLedger
from ml_backend.store.projects import Projects
from ml_backend.store.sessions import Sessions

EVERY_S = 1.0
EVENTS_AT_ONCE = 20  # in memory: an event of many brush regions is megabytes
WAKE_AGAIN_S = 60.0  # a wake-up is lost with the worker that took it
_LEASE_S = 60.0
_OWNER = "learning loop"

log = structlog.get_logger(__name__)


class LearningLoop:
    """Looks every second for something to do; a context manager with two threads."""

    def __init__(
        self,
        *,
        events: EventLedger,
        planner: Planner,
        reconciler: Reconciler,
        ledger: AnnotationLedger,
        projects: Projects,
        sessions: Sessions,
        wake: Callable[[str], None],
        clock: Callable[[], float] = time.time,
        every_s: float = EVERY_S,
    ) -> None:
        """Prepare it.

        Args:
            events, planner, reconciler: What does the work.
            ledger, projects, sessions: The records.
            wake: Puts a session's id on the queue; doing it twice does no harm.
            clock: Seconds since the epoch.
            every_s: Seconds between two looks.
        """
        self._events = events
        self._planner = planner
        self._reconciler = reconciler
        self._ledger = ledger
        self._projects = projects
        self._sessions = sessions
        self._wake = wake
        self._clock = clock
        self._every_s = every_s
        self._look_at: dict[ProjectKey, float] = {}  # when the policy is asked next
        self._listed_at: float | None = None  # when the projects were listed
        self._woken_at: dict[str, float] = {}  # by session
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
            for name, work in (("ledger", self.listen), ("sessions", self.start_sessions))
        ]

    def __enter__(self) -> LearningLoop:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End; a look at a slow Label Studio is not waited for."""
        self._closing.set()
        for thread in self._threads:
            thread.join(timeout=5)

    def listen(self) -> None:
        """Work on waiting events, then ask the policy about projects whose time has come.

        Raises:
            StoreError
        """
        while not self._closing.is_set():
            worked = self._events.work(EVENTS_AT_ONCE)
            for project in worked.projects:
                self._look_at[project] = 0.0
            if worked.events < EVENTS_AT_ONCE:
                break
        now = self._clock()
        if self._listed_at is None or now - self._listed_at >= LOOK_AGAIN_S:
            self._listed_at = now
            for project in self._ledger.projects():
                self._look_at.setdefault(project, 0.0)
        for project, moment in list(self._look_at.items()):
            if moment <= now:
                decision = self._planner.consider(project)
                self._look_at[project] = now + decision.look_again_in_s
                if decision.train:
                    log.info("training asked for", project=str(project), reason=decision.reason)

    def start_sessions(self) -> None:
        """Start what is queued, take up what lost its trainer, and look at one due project.

        Raises:
            StoreError
        """
        claimable = self._sessions.claimable()
        for session in claimable:
            self._start(session)
        still = {session.id for session in claimable}
        self._woken_at = {key: at for key, at in self._woken_at.items() if key in still}
        for project in self._projects.all():
            if self._closing.is_set():
                return
            if self._reconciler.is_due(project.key):
                self._reconcile(project.key)
                return  # a session that was queued meanwhile goes first

    def _start(self, session: Session) -> None:
        """Wake a worker up for a session that has something to learn; end one that has not."""
        now = self._clock()
        woken_at = self._woken_at.get(session.id)
        if woken_at is not None and now - woken_at < WAKE_AGAIN_S:
            return
        if session.started_at is None:
            if not self._reconciler.looked_since(session.project, session.created_at):
                self._reconcile(session.project)
            reason = self._planner.why_not_to_run(session)
            if reason is not None:
                self._end(session, reason)
                return
        self._woken_at[session.id] = now
        self._wake(session.id)

    def _reconcile(self, project: ProjectKey) -> None:
        if self._reconciler.try_to_reconcile(project):
            self._look_at[project] = 0.0

    def _end(self, session: Session, reason: str) -> None:
        lease = self._sessions.claim(session.id, owner=_OWNER, lease_s=_LEASE_S)
        if lease is None:
            return  # another trainer was quicker
        try:
            self._sessions.note(lease, manifest=self._planner.manifest_of_unchanged(session))
            self._sessions.finish(lease, SessionState.COMPLETED, message=reason)
        except SessionLost:
            return
        log.info("session not run", session=session.id, reason=reason)

    def _run(self, work: Callable[[], None]) -> None:
        while not self._closing.wait(self._every_s):
            try:
                work()
            except BackendError as error:  # the records may be away for a moment
                log.warning("learning loop will try again", reason=error.message)
            except Exception:  # the thread must live on; the next round may do
                log.exception("learning loop failed unexpectedly")
