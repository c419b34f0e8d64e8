"""The trainer's queue and threads, with a worker that only notes what it is asked."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

from ml_backend.errors import StoreError
from ml_backend.processes.trainer import Repeatedly, SessionConsumer, register_sessions
from ml_backend.store.queue import make_queue

WITHIN_S = 10.0


class FakeWorker:
    """Notes the sessions it is asked to run."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failure: Exception | None = None

    def work(self, session_id: str) -> None:
        self.asked.append(session_id)
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        """Nothing is open."""


def test_a_wake_up_reaches_the_worker_through_the_queue(tmp_path: Path) -> None:
    queue, worker = make_queue(tmp_path, None), FakeWorker()
    wake = register_sessions(queue, worker)

    wake("abc")
    waiting = queue.pending_count()
    queue.execute(queue.dequeue())

    assert waiting == 1
    assert worker.asked == ["abc"]
    assert queue.pending_count() == 0


def test_records_that_are_away_do_not_end_the_worker_thread(tmp_path: Path) -> None:
    queue, worker = make_queue(tmp_path, None), FakeWorker()
    worker.failure = StoreError()
    register_sessions(queue, worker)("abc")

    queue.execute(queue.dequeue())

    assert worker.asked == ["abc"]


def test_no_signal_waits_for_the_end_of_a_training(tmp_path: Path) -> None:
    consumer = SessionConsumer(make_queue(tmp_path, None))

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        restarts, waits = consumer._signal_actions[number]
        assert not restarts
        assert not waits


def test_what_is_done_repeatedly_begins_at_once_and_survives_failures() -> None:
    enough = threading.Event()
    failures: list[Exception] = [StoreError(), ValueError("a mistake of ours")]
    calls = []

    def work() -> None:
        calls.append(len(calls))
        if failures:
            raise failures.pop()
        enough.set()

    with Repeatedly("test", work, every_s=0.01):
        assert enough.wait(WITHIN_S)

    assert len(calls) >= 3


def test_what_is_done_repeatedly_ends_with_its_block() -> None:
    calls = []
    called = threading.Event()

    def work() -> None:
        calls.append(1)
        called.set()

    with Repeatedly("test", work, every_s=0.01):
        assert called.wait(WITHIN_S)
    so_far = len(calls)
    called.clear()

    assert not called.wait(0.1)
    assert len(calls) == so_far
