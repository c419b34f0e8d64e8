"""The trainer's standing work: from events to sessions that a worker is woken up for.

Four threads, since Label Studio may answer slowly while people go on annotating: one works events
into the ledger and asks the policy, one starts what is queued, and two read Label Studio's API,
one for the sessions that wait for it and one every so often. Several trainers may do this at once:
what counts is decided in the records. What is wrong with one project holds up no other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from ml_backend.domain import ProjectKey
from ml_backend.errors import BackendError
from ml_backend.learning import Session
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
PATIENCE_S = 120.0  # of a session with a look at Label Studio: a whole reading may take an hour
_CLOSING_S = 5.0
_OWNER = "learning loop"

log = structlog.get_logger(__name__)


class LearningLoop:
    """Looks every second for something to do; a context manager with four threads."""

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
        self._not_before: dict[str, float] = {}  # by session: when it is looked at next
        self._waits_since: dict[str, float] = {}  # by session: for a look at its annotations
        self._wanted: set[ProjectKey] = set()  # projects whose sessions wait for that
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
            for name, work in (
                ("ledger", self.listen),
                ("sessions", self.start_sessions),
                ("looks for sessions", self.look_for_sessions),
                ("looks", self.look_around),
            )
        ]

    def __enter__(self) -> LearningLoop:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End; a look at a slow Label Studio is not waited for."""
        self._closing.set()
        deadline = time.monotonic() + _CLOSING_S
        for thread in self._threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))

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
                self._look_at[project] = now + self._consider(project)

    def start_sessions(self) -> None:
        """Start what is queued, and take up what lost its trainer.

        Raises:
            StoreError
        """
        claimable = self._sessions.claimable()
        for session in claimable:
            if self._closing.is_set():
                return
            try:
                self._start(session)
            except Exception as error:
                _report("session cannot be started now", error, session=session.id)
                self._not_before[session.id] = self._clock() + LOOK_AGAIN_S
        still = {session.id for session in claimable}
        for times in (self._not_before, self._waits_since):
            for session_id in times.keys() - still:
                del times[session_id]

    def look_for_sessions(self) -> None:
        """Read the annotations of projects whose sessions wait for it."""
        for project in list(self._wanted):
            if self._closing.is_set():
                return
            if self._reconciler.is_looking(project):
                continue  # that may take long, and others wait
            self._reconcile(project)
            self._wanted.discard(project)

    def look_around(self) -> None:
        """Read the annotations of every project whose time has come.

        Raises:
            StoreError
        """
        for project in self._projects.all():
            if self._closing.is_set():
                return
            if self._reconciler.is_due(project.key):
                self._reconcile(project.key)

    def _consider(self, project: ProjectKey) -> float:
        """Ask the policy about a project; return the seconds until it is to be asked again."""
        try:
            decision = self._planner.consider(project)
        except Exception as error:
            _report("project cannot be considered for training", error, project=str(project))
            return LOOK_AGAIN_S
        if decision.train:
            log.info("training asked for", project=str(project), reason=decision.reason)
        return decision.look_again_in_s

    def _start(self, session: Session) -> None:
        """Wake a worker up for a session that has something to learn; end one that has not."""
        now = self._clock()
        if now < self._not_before.get(session.id, now):
            return
        # a person knows what a dataset or a checkpoint has to give; Label Studio need not be asked
        is_project_news = session.dataset is None and session.restarted_from is None
        if session.started_at is None and is_project_news:
            if not self._is_looked_at(session, now):
                return
            reason = self._planner.why_not_to_run(session)
            if reason is not None:
                self._end(session, reason)
                return
        self._not_before[session.id] = now + WAKE_AGAIN_S
        self._wake(session.id)

    def _is_looked_at(self, session: Session, now: float) -> bool:
        """Return whether a session need not wait (any more) for a look at its annotations."""
        if self._reconciler.looked_since(session.project, session.created_at):
            return True
        self._wanted.add(session.project)
        waits = now - self._waits_since.setdefault(session.id, now)
        if waits < PATIENCE_S:
            return False
        log.warning(
            "session starts before Label Studio's annotations were all read", session=session.id
        )
        return True

    def _reconcile(self, project: ProjectKey) -> None:
        try:
            if self._reconciler.try_to_reconcile(project):
                self._look_at[project] = 0.0
        except Exception as error:
            _report("project cannot be reconciled now", error, project=str(project))

    def _end(self, session: Session, reason: str) -> None:
        manifest = self._planner.manifest_of_unchanged(session)
        if self._sessions.complete_unrun(
            session.id, owner=_OWNER, message=reason, manifest=manifest
        ):  # else another trainer was quicker
            log.info("session not run", session=session.id, reason=reason)

    def _run(self, work: Callable[[], None]) -> None:
        while not self._closing.wait(self._every_s):
            try:
                work()
            except BackendError as error:  # the records may be away for a moment
                log.warning("learning loop will try again", reason=error.message)
            except Exception:  # the thread must live on; the next round may do
                log.exception("learning loop failed unexpectedly")


def _report(what: str, error: Exception, **names: str) -> None:
    """Log what is wrong with one project or session; the others go on, and it is tried again."""
    if isinstance(error, BackendError):
        log.warning(what, reason=error.message, **names)
    else:
        log.error(what, exc_info=error, **names)
