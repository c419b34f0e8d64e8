"""Takes training sessions on: claims one, runs it in a process of its own, sees to its end.

A process that ends without having ended its session (killed, out of memory, told to go) has its
session continued from the last checkpoint: here at once, or by another trainer. One that never
gets further is given up with a sentence.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from signal import SIGTERM
from typing import Any, Protocol

import structlog

from ml_backend.errors import SessionLost, StoreError
from ml_backend.learning import Lease, Session, SessionState
from ml_backend.processes.heartbeats import EVERY_S, LEASE_S
from ml_backend.processes.training_child import EXIT_GIVEN_BACK, describe_end

MOST_TRIES = 6  # in a row that got no further
LONGEST_PAUSE_S = 30.0
SILENT_S = 3 * LEASE_S  # without a heartbeat; then the process is taken for hung
GIVING_BACK_S = 2.0  # after the process has ended; then this one may end as well
LOOKS = 3  # in a row before it is: a machine that slept has old heartbeats for a moment

log = structlog.get_logger(__name__)


class SessionRecords(Protocol):
    """The part of the session records that a worker needs."""

    def get(self, session_id: str, *, with_manifest: bool = True) -> Session | None:
        """Return that session; its manifest may be long."""
        ...

    def claim(self, session_id: str, *, owner: str, lease_s: float) -> Lease | None:
        """Take it on, if it is to be had."""
        ...

    def heartbeat(self, lease: Lease, lease_s: float) -> bool:
        """Extend the lease."""
        ...

    def note(self, lease: Lease, *, progress: Mapping[str, Any]) -> None:
        """Write how far it has come."""
        ...

    def finish(self, lease: Lease, state: SessionState, *, message: str | None) -> None:
        """End it."""
        ...


class Child(Protocol):
    """A running training process."""

    def wait(self, timeout_s: float) -> int | None:
        """Return its exit code, None while it runs on."""
        ...

    def end(self) -> None:
        """Ask it to go and see that it does."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...


class SessionWorker:
    """Runs one session at a time; `work` and `close` are called from different threads."""

    def __init__(
        self,
        sessions: SessionRecords,
        start: Callable[[Lease], Child],
        *,
        owner: str,
        clock: Callable[[], float] = time.time,
        lease_s: float = LEASE_S,
        first_pause_s: float = 0.5,
    ) -> None:
        """Keep the collaborators.

        Args:
            sessions: the records.
            start: starts a training process.
            owner: a name for this trainer, for people.
            clock: the records' clock, seconds since the epoch.
            lease_s: how long a session stays with its process without a heartbeat.
            first_pause_s: before a session whose process died is continued; it doubles.
        """
        self._sessions = sessions
        self._start = start
        self._owner = owner
        self._clock = clock
        self._lease_s = lease_s
        self._first_pause_s = first_pause_s
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._working = threading.Lock()  # held for as long as a session is
        self._child: Child | None = None

    def work(self, session_id: str) -> None:
        """Run a session to its end, if it is to be had; return early when this trainer closes.

        Raises:
            StoreError
        """
        with self._working:
            self._work(session_id)

    def close(self) -> None:
        """Have the running process leave a checkpoint and end; take nothing on any more."""
        self._closing.set()
        with self._lock:
            child = self._child
        if child is not None:
            child.end()
        if self._working.acquire(timeout=GIVING_BACK_S):  # the lease is given back by then
            self._working.release()

    def _work(self, session_id: str) -> None:
        last_end = None
        while not self._closing.is_set():
            lease = self._sessions.claim(session_id, owner=self._owner, lease_s=self._lease_s)
            if lease is None:
                return
            tries = self._count_try(lease, last_end)
            if tries is None:
                return
            code = self._run(lease)
            if not self._is_unfinished(lease):
                return
            last_end = None if code is None else describe_end(code)
            log.warning("training process ended early", session=session_id, how=last_end)
            was_told = code in (EXIT_GIVEN_BACK, -SIGTERM) or self._closing.is_set()
            self._give_back(lease, tries if was_told else None)
            self._closing.wait(min(LONGEST_PAUSE_S, self._first_pause_s * 2.0**tries))

    def _count_try(self, lease: Lease, last_end: str | None) -> int | None:
        """Return how often in a row it was tried without getting further; None: given up."""
        session = self._sessions.get(lease.session_id, with_manifest=False)
        progress = dict(session.progress) if session else {}
        tries = int(progress.get("tries", 0))
        if tries >= MOST_TRIES:
            self._sessions.note(lease, progress={**progress, "tries": 0})  # it may be resumed
            how = f" (the last time: {last_end})" if last_end else ""
            self._sessions.finish(
                lease,
                SessionState.FAILED,
                message=f"The training process ended {tries} times without getting further{how}; "
                "look into the trainer's log, mend what it says, and resume the session.",
            )
            return None
        self._sessions.note(lease, progress={**progress, "tries": tries + 1})
        return tries

    def _run(self, lease: Lease) -> int | None:
        """Return the exit code of the session's process; None when it could not be started."""
        try:
            with self._lock:
                if self._closing.is_set():
                    return EXIT_GIVEN_BACK
                child = self._child = self._start(lease)
        except OSError as error:
            log.error("training process cannot be started", reason=str(error))
            return None
        looks = 0  # in a row that saw a reason to end it
        try:
            while (code := child.wait(EVERY_S)) is None:
                looks = looks + 1 if self._is_to_be_ended(lease) else 0
                if looks >= LOOKS:
                    log.error("training process has hung", session=lease.session_id)
                    child.kill()
            return code
        finally:
            with self._lock:
                self._child = None

    def _is_to_be_ended(self, lease: Lease) -> bool:
        """Return whether the process has hung, or works on what is another's by now."""
        try:
            session = self._sessions.get(lease.session_id, with_manifest=False)
        except StoreError:
            return False  # it knows best itself
        if session is None or session.lease != lease.number:
            return True  # it notices that itself at its next heartbeat, unless it has hung
        silent_s = self._clock() - (session.heartbeat_at or self._clock())
        return session.state is SessionState.RUNNING and silent_s > SILENT_S

    def _is_unfinished(self, lease: Lease) -> bool:
        session = self._sessions.get(lease.session_id, with_manifest=False)
        return (
            session is not None
            and session.state is SessionState.RUNNING
            and session.lease == lease.number
        )

    def _give_back(self, lease: Lease, tries: int | None) -> None:
        """Let the session be claimed at once; `tries` where this try shall not count."""
        try:
            if tries is not None:
                session = self._sessions.get(lease.session_id, with_manifest=False)
                progress = dict(session.progress) if session else {}
                self._sessions.note(lease, progress={**progress, "tries": tries})
            self._sessions.heartbeat(lease, 0.0)
        except SessionLost:
            pass  # taken over already
        except StoreError as error:  # then it runs out by itself
            log.warning("session not given back", reason=error.message)
