"""The trainer process: a Huey consumer that is woken up for training sessions, and keeps house.

Its worker is a thread: Huey's process workers fork, which breaks CUDA, and are daemonic, which
forbids the subprocess that a training session runs in. The worker is busy for as long as a
session trains, so nothing else is put on the queue.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from signal import SIGHUP, SIGINT, SIGTERM
from typing import Any, Protocol

import structlog
from huey.consumer import Consumer

from ml_backend.errors import BackendError

TASK = "run_session"

log = structlog.get_logger(__name__)


class Worker(Protocol):
    """Runs training sessions, one at a time."""

    def work(self, session_id: str) -> None:
        """Run a session to its end, if it is to be had."""
        ...

    def close(self) -> None:
        """Have the running session leave a checkpoint and end."""
        ...


class Repeatedly:
    """Calls a function every so often in a thread; a context manager."""

    def __init__(self, name: str, function: Callable[[], None], *, every_s: float) -> None:
        self._name = name
        self._function = function
        self._every_s = every_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Repeatedly:
        """Call it for the first time now, then begin to wait."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Call it no more."""
        self._closing.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while True:
            try:
                self._function()
            except BackendError as error:  # the records may be away for a moment
                log.warning("failed and will be tried again", what=self._name, reason=error.message)
            except Exception:  # the thread must live on; the next round may do
                log.exception("failed unexpectedly", what=self._name)
            if self._closing.wait(self._every_s):
                return


def register_sessions(queue: Any, worker: Worker) -> Callable[[str], None]:
    """Have the queue's wake-ups answered by `worker`; return what puts one on the queue.

    A wake-up that is lost or comes twice does no harm: what is to be done stands in the records.
    """

    def run_session(session_id: str) -> None:
        try:
            worker.work(session_id)
        except BackendError as error:
            log.warning("session not run", session=session_id, reason=error.message)

    task = queue.task(name=TASK)(run_session)

    def wake(session_id: str) -> None:
        task(session_id)

    return wake


class SessionConsumer(Consumer):  # type: ignore[misc]  # huey has no type hints
    """Huey's consumer, whose signals both mean: leave a checkpoint and go."""

    def __init__(self, queue: Any) -> None:
        # Huey would wait for the end of a training at SIGINT, and start itself anew at SIGHUP
        super().__init__(
            queue, workers=1, worker_type="thread", periodic=False, max_delay=1.0, backoff=1.5
        )
        stop_at_once = (False, False)  # no restart, no waiting for the running task
        self._signal_actions: dict[int, tuple[bool, bool]] = dict.fromkeys(
            (SIGTERM, SIGINT, SIGHUP), stop_at_once
        )


def run_trainer(queue: Any, worker: Worker) -> None:
    """Work until SIGTERM, SIGINT or SIGHUP; the running session goes on after the next start."""
    consumer = SessionConsumer(queue)
    log.info("trainer waits for work")
    try:
        consumer.run()
    finally:
        worker.close()
        log.info("trainer stops")
