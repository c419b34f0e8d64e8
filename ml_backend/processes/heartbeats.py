"""The sign of life of a training process: a thread that renews its lease in the records.

A lease that another trainer has taken ends this process at once and without a word to the records:
whatever it would write now is its successor's business.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Protocol

import structlog

from ml_backend.errors import SessionLost, StoreError
from ml_backend.learning import Lease

EVERY_S = 5.0
LEASE_S = 30.0  # without a heartbeat; then another trainer goes on from the last checkpoint
EXIT_LOST = 76  # EX_PROTOCOL of sysexits.h

log = structlog.get_logger(__name__)


class Renewing(Protocol):
    """The part of the session records that a heartbeat needs."""

    def heartbeat(self, lease: Lease, lease_s: float) -> bool:
        """Extend the lease; return whether a person has asked for a stop."""
        ...


def leave_now() -> None:
    """End this process between two instructions: no handler runs, nothing more is written."""
    os._exit(EXIT_LOST)


class Heartbeats:
    """A context manager with one thread."""

    def __init__(
        self,
        sessions: Renewing,
        lease: Lease,
        *,
        on_stop: Callable[[], None],
        on_lost: Callable[[], None] = leave_now,
        every_s: float = EVERY_S,
        lease_s: float = LEASE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the thread.

        Args:
            sessions: where the lease is.
            lease: which one.
            on_stop: called in the thread when a person has asked for a stop; at every heartbeat.
            on_lost: called in the thread when the lease is another's, or could not be renewed.
            every_s: between two heartbeats.
            lease_s: how long the lease holds without one.
            clock: seconds; standing still while the machine sleeps is fine.
        """
        self._sessions = sessions
        self._lease = lease
        self._on_stop = on_stop
        self._on_lost = on_lost
        self._every_s = every_s
        self._lease_s = lease_s
        self._clock = clock
        self._renewed_at = clock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeats", daemon=True)

    def __enter__(self) -> Heartbeats:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the thread; the lease runs out by itself."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def beat(self) -> None:
        """Renew the lease once, or say that it is lost."""
        try:
            stop = self._sessions.heartbeat(self._lease, self._lease_s)
        except SessionLost as error:
            log.warning("session lost", session=self._lease.session_id, reason=error.message)
            self._on_lost()
            return
        except StoreError as error:
            log.warning("heartbeat failed", reason=error.message)
            if self._clock() - self._renewed_at >= self._lease_s:
                self._on_lost()  # nobody can tell whose the session is by now
            return
        self._renewed_at = self._clock()
        if stop:
            self._on_stop()

    def _run(self) -> None:
        while not self._closing.wait(self._every_s):
            self.beat()
