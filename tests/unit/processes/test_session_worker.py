"""The trainer's worker on real records, with training processes that are only numbers."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ml_backend.domain import ProjectKey
from ml_backend.learning import Lease, Session, SessionState, TrainingParameters, Trigger
from ml_backend.processes.session_worker import LOOKS, MOST_TRIES, SILENT_S, SessionWorker
from ml_backend.processes.training_child import EXIT_GIVEN_BACK
from ml_backend.store.database import Database
from ml_backend.store.sessions import Sessions
from tests.fakes import ManualClock

PROJECT = ProjectKey(origin="http://ls", project_id=1, created_at=1_800_000_000)
KILLED = -signal.SIGKILL


class FakeChild:
    """A training process that does at once what a test says, and ends."""

    def __init__(self, does: Callable[[], int | None]) -> None:
        self._does = does
        self.ended = threading.Event()
        self.killed = False

    def wait(self, timeout_s: float) -> int | None:
        code = KILLED if self.killed else self._does()
        if code is None and self.ended.wait(0.01):
            return EXIT_GIVEN_BACK
        return code

    def end(self) -> None:
        self.ended.set()

    def kill(self) -> None:
        self.killed = True


class Workshop:
    """A worker, its records, and the processes that it has started."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        database = Database(f"sqlite:///{folder / 'records.sqlite3'}")
        database.migrate()
        self.sessions = Sessions(database, clock=self.clock)
        self.leases: list[Lease] = []
        self.children: list[FakeChild] = []
        self.plan: list[Callable[[Lease], int | None]] = []
        self.started = threading.Event()
        self.worker = SessionWorker(
            self.sessions, self._start, owner="here", clock=self.clock, first_pause_s=0.0
        )

    def queue(self) -> Session:
        return self.sessions.request(
            PROJECT,
            controls=["cells"],
            trigger=Trigger.PERSON,
            parameters=TrainingParameters(),
        )

    def state(self, session: Session) -> SessionState:
        found = self.sessions.get(session.id)
        assert found is not None
        return found.state

    def complete(self, lease: Lease) -> int:
        self.sessions.finish(lease, SessionState.COMPLETED, message="Done.")
        return 0

    def _start(self, lease: Lease) -> FakeChild:
        self.leases.append(lease)
        does = self.plan[min(len(self.leases), len(self.plan)) - 1]
        child = FakeChild(lambda: does(lease))
        self.children.append(child)
        self.started.set()
        return child


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def test_a_queued_session_runs_to_its_end_in_one_process(workshop: Workshop) -> None:
    workshop.plan = [workshop.complete]
    session = workshop.queue()

    workshop.worker.work(session.id)

    assert workshop.state(session) is SessionState.COMPLETED
    assert [lease.number for lease in workshop.leases] == [1]


def test_a_wake_up_that_comes_twice_starts_nothing_twice(workshop: Workshop) -> None:
    workshop.plan = [workshop.complete]
    session = workshop.queue()

    workshop.worker.work(session.id)
    workshop.worker.work(session.id)
    workshop.worker.work("no such session")

    assert len(workshop.leases) == 1


def test_a_process_that_was_killed_is_followed_by_another_with_a_new_lease(
    workshop: Workshop,
) -> None:
    workshop.plan = [lambda _: KILLED, lambda _: KILLED, workshop.complete]
    session = workshop.queue()

    workshop.worker.work(session.id)

    assert workshop.state(session) is SessionState.COMPLETED
    assert [lease.number for lease in workshop.leases] == [1, 2, 3]


def test_a_session_that_never_gets_further_is_given_up_with_a_sentence(workshop: Workshop) -> None:
    workshop.plan = [lambda _: KILLED]
    session = workshop.queue()

    workshop.worker.work(session.id)

    ended = workshop.sessions.get(session.id)
    assert ended is not None
    assert ended.state is SessionState.FAILED
    assert "SIGKILL" in str(ended.message)
    assert len(workshop.leases) == MOST_TRIES


def test_a_session_that_was_given_up_can_be_resumed(workshop: Workshop) -> None:
    workshop.plan = [lambda _: KILLED]
    session = workshop.queue()
    workshop.worker.work(session.id)
    workshop.sessions.resume(session.id)
    workshop.plan = [workshop.complete]

    workshop.worker.work(session.id)

    assert workshop.state(session) is SessionState.COMPLETED


def test_one_that_gets_further_each_time_is_never_given_up(workshop: Workshop) -> None:
    def progress(lease: Lease) -> int:
        workshop.sessions.note(lease, progress={"tries": 0})
        return KILLED

    workshop.plan = [progress] * (3 * MOST_TRIES) + [workshop.complete]
    session = workshop.queue()

    workshop.worker.work(session.id)

    assert workshop.state(session) is SessionState.COMPLETED


def test_closing_asks_the_process_to_go_and_gives_the_session_back(workshop: Workshop) -> None:
    workshop.plan = [lambda _: None]
    session = workshop.queue()
    thread = threading.Thread(target=workshop.worker.work, args=(session.id,))
    thread.start()
    assert workshop.started.wait(5)

    workshop.worker.close()
    thread.join(5)

    found = workshop.sessions.get(session.id)
    assert found is not None
    assert not thread.is_alive()
    assert workshop.children[0].ended.is_set()
    assert found.progress["tries"] == 0  # being told to go is nobody's fault
    assert [one.id for one in workshop.sessions.claimable()] == [session.id]


def test_a_closed_worker_takes_nothing_on(workshop: Workshop) -> None:
    session = workshop.queue()

    workshop.worker.close()
    workshop.worker.work(session.id)

    assert workshop.state(session) is SessionState.QUEUED


def test_a_process_that_shows_no_sign_of_life_is_killed(workshop: Workshop) -> None:
    def hang(_: Lease) -> None:
        workshop.clock.forward(SILENT_S + 1)

    workshop.plan = [hang, workshop.complete]
    session = workshop.queue()

    workshop.worker.work(session.id)

    assert workshop.children[0].killed
    assert workshop.state(session) is SessionState.COMPLETED


def test_a_machine_that_slept_does_not_take_its_training_for_hung(workshop: Workshop) -> None:
    looks = 0

    def sleep_once(lease: Lease) -> int | None:
        nonlocal looks
        looks += 1
        if looks == 1:
            workshop.clock.forward(SILENT_S + 1)
        elif looks == LOOKS:
            workshop.sessions.heartbeat(lease, 30)
        return workshop.complete(lease) if looks > 3 * LOOKS else None

    workshop.plan = [sleep_once]
    session = workshop.queue()

    workshop.worker.work(session.id)

    assert not workshop.children[0].killed
    assert workshop.state(session) is SessionState.COMPLETED


def test_what_another_trainer_has_taken_over_is_left_to_it(workshop: Workshop) -> None:
    def overtaken(lease: Lease) -> int:
        workshop.sessions.heartbeat(lease, 0)
        assert workshop.sessions.claim(session.id, owner="another", lease_s=30)
        return KILLED

    workshop.plan = [overtaken]
    session = workshop.queue()

    workshop.worker.work(session.id)

    assert workshop.state(session) is SessionState.RUNNING
    assert len(workshop.leases) == 1


def test_a_process_that_cannot_be_started_is_tried_again(workshop: Workshop) -> None:
    session = workshop.queue()
    attempts = []

    def start(lease: Lease) -> FakeChild:
        attempts.append(lease)
        if len(attempts) == 1:
            raise OSError("no more processes")
        return FakeChild(lambda: workshop.complete(lease))

    worker = SessionWorker(
        workshop.sessions, start, owner="here", clock=workshop.clock, first_pause_s=0
    )

    worker.work(session.id)

    assert workshop.state(session) is SessionState.COMPLETED
    assert len(attempts) == 2
