"""What queue and session leases promise together: a wake-up may be lost or doubled, a session not.

SQL is the truth and the queue only wakes trainers up, whatever the two are made of.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_backend.errors import SessionLost
from ml_backend.learning import Lease, Session, SessionState, TrainingParameters, Trigger
from ml_backend.store.database import Database
from ml_backend.store.queue import make_queue
from ml_backend.store.sessions import Sessions
from tests.contracts.learning_records import PROJECT
from tests.fakes import ManualClock


@pytest.fixture(params=["sqlite", "redis"])
def queue_url(request: pytest.FixtureRequest) -> str | None:
    """Return where the queue is; None: in a file."""
    return request.getfixturevalue("redis") if request.param == "redis" else None


class Trainers:
    """Several trainers with one queue, as their processes would be."""

    def __init__(self, sessions: Sessions, queue: Any) -> None:
        self.sessions = sessions
        self.leases: list[Lease] = []
        self.queue = queue

        @queue.task(name="run_session")
        def run_session(session_id: str) -> None:
            owner = f"trainer-{len(self.leases)}"
            lease = sessions.claim(session_id, owner=owner, lease_s=30)
            if lease is not None:
                self.leases.append(lease)

        self.wake = run_session

    def ask(self) -> Session:
        """Ask for a session, without waking anybody up."""
        return self.sessions.request(
            PROJECT,
            controls=["cells"],
            trigger=Trigger.POLICY,
            parameters=TrainingParameters(),
        )

    def tick(self) -> None:
        """Wake trainers up for all that is to be had, as their loop does."""
        for session in self.sessions.claimable():
            self.wake(session.id)

    def work(self) -> list[int]:
        """Work the queue off; return the numbers of the leases that were got."""
        before = len(self.leases)
        while (message := self.queue.dequeue()) is not None:
            self.queue.execute(message)
        return [lease.number for lease in self.leases[before:]]


@pytest.fixture
def clock() -> ManualClock:
    """Return our clock."""
    return ManualClock()


@pytest.fixture
def trainers(
    database: Database, queue_url: str | None, tmp_path: Path, clock: ManualClock
) -> Iterator[Trainers]:
    """Yield idle trainers."""
    queue = make_queue(tmp_path, queue_url)
    queue.flush()
    yield Trainers(Sessions(database, clock=clock), queue)
    queue.flush()


class TestQueueAndLeases:
    def test_a_wake_up_that_comes_twice_trains_once(self, trainers: Trainers) -> None:
        session = trainers.ask()
        trainers.wake(session.id)
        trainers.wake(session.id)

        assert trainers.work() == [1]
        assert trainers.work() == []

    def test_a_wake_up_that_was_lost_is_repeated(self, trainers: Trainers) -> None:
        session = trainers.ask()
        trainers.wake(session.id)
        trainers.queue.flush()  # as when the machine with the queue is replaced
        trainers.tick()

        assert trainers.work() == [1]
        assert trainers.leases[0].session_id == session.id

    def test_a_session_whose_trainer_was_killed_goes_to_another(
        self, trainers: Trainers, clock: ManualClock
    ) -> None:
        session = trainers.ask()
        trainers.tick()
        trainers.work()
        clock.forward(10)
        trainers.tick()
        early = trainers.work()
        clock.forward(21)
        trainers.tick()
        trainers.tick()

        assert (early, trainers.work()) == ([], [2])
        killed, successor = trainers.leases
        with pytest.raises(SessionLost):
            trainers.sessions.finish(killed, SessionState.COMPLETED, message="mine")
        trainers.sessions.finish(successor, SessionState.COMPLETED, message="done")
        ended = trainers.sessions.get(session.id)
        assert ended is not None
        assert (ended.state, ended.message, ended.attempts) == ("completed", "done", 2)

    def test_the_next_session_waits_for_the_first_and_is_then_woken(
        self, trainers: Trainers
    ) -> None:
        trainers.ask()
        trainers.tick()
        trainers.work()
        second = trainers.ask()
        trainers.wake(second.id)
        early = trainers.work()
        trainers.sessions.finish(trainers.leases[0], SessionState.FAILED, message="no")
        trainers.tick()

        assert (early, trainers.work()) == ([], [1])
        assert trainers.leases[-1].session_id == second.id

    def test_a_stopped_one_is_not_trained_although_its_wake_up_comes(
        self, trainers: Trainers
    ) -> None:
        session = trainers.ask()
        trainers.wake(session.id)
        trainers.sessions.request_stop(session.id)
        asleep = trainers.work()
        trainers.sessions.resume(session.id)
        trainers.tick()

        assert (asleep, len(trainers.work())) == ([], 1)

    def test_a_wake_up_for_a_session_that_was_deleted_does_nothing(
        self, trainers: Trainers
    ) -> None:
        session = trainers.ask()
        trainers.wake(session.id)
        trainers.sessions.request_stop(session.id)
        trainers.sessions.delete(session.id)

        assert trainers.work() == []
