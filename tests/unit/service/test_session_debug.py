"""What people are told of why a session is in its state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_backend.learning import Lease, Session, SessionState, SessionStatus, Trigger
from ml_backend.learning import TrainingParameters as Parameters
from ml_backend.service.session_debug import TAKEN_UP_WITHIN_S, SessionDebug, SessionDebugger
from ml_backend.store.trainers import GONE_AFTER_S, Trainers
from tests.unit.service.learning_desk import KEY, LearningDesk, open_desk


class Bench:
    """A desk with trainers, and what examines its sessions."""

    def __init__(self, desk: LearningDesk) -> None:
        self.desk, self.clock, self.sessions = desk, desk.clock, desk.sessions
        self.trainers = Trainers(desk.database, clock=desk.clock)
        self._debugger = SessionDebugger(self.sessions, self.trainers, clock=desk.clock)

    def request(self, control: str = "cells", **more: Any) -> Session:
        """Queue a session, a second after the one before."""
        self.clock.forward(1)
        return self.sessions.request(
            KEY, controls=[control], trigger=Trigger.PERSON, parameters=Parameters(), **more
        )

    def claim(self, session: Session, owner: str = "host:1", lease_s: float = 30) -> Lease:
        """Be the trainer that takes a session up."""
        self.trainers.seen(owner)
        lease = self.sessions.claim(session.id, owner=owner, lease_s=lease_s)
        assert lease is not None
        return lease

    def examine(self, session: Session) -> SessionDebug:
        """Return why a session is in its state now."""
        found = self.sessions.get(session.id, with_manifest=False)
        assert found is not None
        return self._debugger.examine(found)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    desk = open_desk(tmp_path)
    yield Bench(desk)
    desk.database.close()


class TestWaiting:
    def test_without_a_trainer_nobody_takes_it_up(self, bench: Bench) -> None:
        session = bench.request()
        bench.clock.forward(75)

        said = bench.examine(session)

        assert said.status is SessionStatus.QUEUED
        assert said.reason == "It has waited for 75 s, and no trainer was there for the last 60 s."
        assert "ml-backend trainer" in said.next_step
        assert (said.queue_position, said.trainers, said.heartbeat_age_s) == (1, (), None)
        assert (said.lease.owner, said.lease.until, said.lease.seconds_left) == (None, None, None)

    def test_a_trainer_that_went_away_is_none(self, bench: Bench) -> None:
        session = bench.request()
        bench.trainers.seen("host:1")
        assert "a trainer is free" in bench.examine(session).reason
        bench.clock.forward(GONE_AFTER_S + 1)
        assert "no trainer was there" in bench.examine(session).reason

    def test_one_of_the_same_controls_is_in_the_way(self, bench: Bench) -> None:
        running, other = bench.request(), bench.request("boxes")
        bench.claim(running)
        session = bench.request()

        assert f"It waits for session {running.id}" in bench.examine(session).reason
        assert running.id in bench.examine(session).next_step
        assert "It waits for session" not in bench.examine(other).reason

    def test_sessions_about_datasets_are_in_nobodys_way(self, bench: Bench) -> None:
        running = bench.request(dataset="nuclei")
        bench.claim(running)
        session = bench.request(dataset="nuclei")
        assert "1 trainer is there, busy with" in bench.examine(session).reason

    def test_busy_trainers_are_named_with_what_they_train(self, bench: Bench) -> None:
        first, second = bench.request("a"), bench.request("b")
        bench.claim(first, "host:1")
        bench.claim(second, "host:2")
        waiting = [bench.request("c"), bench.request("d"), bench.request("e")]

        said = bench.examine(waiting[2])

        assert said.queue_position == 3
        assert said.trainers == ("host:1", "host:2")
        assert said.reason.startswith("It has waited for 0 s: 2 trainers are there, busy with ")
        assert first.id in said.reason
        assert second.id in said.reason
        assert said.reason.endswith("and 2 sessions that wait were asked for earlier.")
        assert "another trainer" in said.next_step

    def test_a_training_in_a_command_keeps_no_trainer_busy(self, bench: Bench) -> None:
        own = bench.request("a")
        assert bench.sessions.claim(own.id, owner="ml-backend train", lease_s=30) is not None
        bench.trainers.seen("host:1")
        assert "a trainer is free" in bench.examine(bench.request("b")).reason

    def test_a_free_trainer_that_does_not_take_it_up_is_suspicious_after_a_while(
        self, bench: Bench
    ) -> None:
        session = bench.request()
        bench.trainers.seen("host:1")
        assert bench.examine(session).next_step == "Wait a moment."
        bench.clock.forward(TAKEN_UP_WITHIN_S + 1)
        bench.trainers.seen("host:1")
        said = bench.examine(session)
        assert "although a trainer is there and free" in said.reason
        assert "trainer's log" in said.next_step


class TestRunning:
    def test_one_that_is_trained_tells_by_whom_and_when_it_was_heard_of(self, bench: Bench) -> None:
        session = bench.request()
        lease = bench.claim(session, "Host:1")
        bench.sessions.note(lease, progress={"phase": "training", "tries": 1})
        bench.clock.forward(4)

        said = bench.examine(session)

        assert said.status is SessionStatus.RUNNING
        assert said.reason == (
            "Trainer Host:1 works on it in the phase training; its last sign of life is 4 s old."
        )
        assert (said.heartbeat_age_s, said.queue_position) == (4.0, None)
        assert (said.lease.number, said.lease.owner, said.lease.seconds_left) == (1, "Host:1", 26.0)
        assert said.lease.until == bench.clock() + 26

    def test_one_that_was_asked_to_stop_says_so(self, bench: Bench) -> None:
        session = bench.request()
        bench.claim(session)
        bench.sessions.request_stop(session.id)
        assert "asked to stop" in bench.examine(session).reason

    def test_one_whose_process_dies_again_and_again_says_so(self, bench: Bench) -> None:
        session = bench.request()
        bench.sessions.note(bench.claim(session), progress={"phase": "dataset", "tries": 3})
        said = bench.examine(session)
        assert "its process ended 2 times without getting further" in said.reason
        assert "trainer's log" in said.next_step

    @pytest.mark.parametrize("progress", [{}, {"phase": 3, "tries": "x"}, {"phase": None}])
    def test_progress_that_is_not_known_is_left_out(
        self, bench: Bench, progress: dict[str, Any]
    ) -> None:
        session = bench.request()
        bench.sessions.note(bench.claim(session), progress=progress)
        assert bench.examine(session).reason == (
            "Trainer host:1 works on it; its last sign of life is 0 s old."
        )

    def test_one_whose_trainer_is_gone_says_for_how_long(self, bench: Bench) -> None:
        session = bench.request()
        bench.claim(session, "host:1")
        bench.clock.forward(GONE_AFTER_S + 40)

        said = bench.examine(session)

        assert said.status is SessionStatus.UNKNOWN
        assert said.reason.startswith("Trainer host:1 was not heard of for 100 s")
        assert said.lease.seconds_left == -70
        assert "It goes on from the last checkpoint" in said.next_step
        bench.trainers.seen("host:2")
        assert "goes on from the last checkpoint as soon as it is free" in (
            bench.examine(session).next_step
        )


class TestEnded:
    @pytest.mark.parametrize(
        ("state", "version", "step"),
        [
            ("completed", "nuclei-1-p1-v1", "nuclei-1-p1-v1 can be named wherever"),
            ("completed", None, "made no model"),
            ("failed", None, "then resume it"),
            ("stopped", None, "Resume it"),
        ],
    )
    def test_the_reason_is_what_the_session_says(
        self, bench: Bench, state: str, version: str | None, step: str
    ) -> None:
        session = bench.request()
        lease = bench.claim(session)
        bench.sessions.finish(lease, SessionState(state), message="The disk is full.")
        if version is not None:
            other = bench.request()
            session, lease = other, bench.claim(other)
            bench.sessions.finish(
                lease, SessionState(state), message="The disk is full.", version=version
            )

        said = bench.examine(session)

        assert (said.status, said.reason) == (SessionStatus(state), "The disk is full.")
        assert step in said.next_step
        assert (said.queue_position, said.heartbeat_age_s, said.lease.until) == (None, None, None)

    def test_one_that_says_nothing_is_a_sentence_too(self, bench: Bench) -> None:
        session = bench.request()
        bench.sessions.finish(bench.claim(session), SessionState.STOPPED, message=None)
        assert bench.examine(session).reason == "It is stopped; it says no more."
