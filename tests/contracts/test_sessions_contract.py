"""What training sessions and their leases promise on every database."""

from __future__ import annotations

import itertools
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ml_backend.errors import Conflict, SessionLost, StoreError
from ml_backend.learning import (
    ENDED,
    TRANSITIONS,
    EpochPoint,
    Lease,
    Multiple,
    Session,
    SessionState,
    TrainingParameters,
    Trigger,
)
from ml_backend.store.database import Database
from ml_backend.store.schema import SessionRow
from ml_backend.store.session_rows import target_of
from ml_backend.store.sessions import Sessions
from tests.contracts.learning_records import OTHER_PROJECT, PROJECT
from tests.fakes import ManualClock

POINT = EpochPoint(epoch=1, step=10, loss=0.5, learning_rate=1e-4)


@pytest.fixture
def clock() -> ManualClock:
    """Return our clock."""
    return ManualClock()


@pytest.fixture
def sessions(database: Database, clock: ManualClock) -> Sessions:
    """Return the empty table."""
    return Sessions(database, clock=clock)


def request(sessions: Sessions, *controls: str, **more: Any) -> Session:
    """Ask for a session."""
    fields: dict[str, Any] = {"trigger": Trigger.POLICY, "parameters": TrainingParameters()}
    return sessions.request(PROJECT, controls=controls or ("cells",), **{**fields, **more})


def claim(sessions: Sessions, session: Session, owner: str = "trainer-1") -> Lease:
    """Claim a session that is to be had."""
    lease = sessions.claim(session.id, owner=owner, lease_s=30)
    assert lease is not None
    return lease


def get(sessions: Sessions, session: Session) -> Session:
    """Return a session as it is now."""
    found = sessions.get(session.id)
    assert found is not None
    return found


class TestRequests:
    def test_a_session_comes_back_as_it_was_asked_for(
        self, sessions: Sessions, clock: ManualClock
    ) -> None:
        parameters = TrainingParameters(n_epochs=3, multiple=Multiple.ALL, learning_rate=1e-4)

        made = request(
            sessions,
            "nuclei",
            "cells",
            trigger=Trigger.PERSON,
            parameters=parameters,
            owner="ada's token",
        )

        assert sessions.get(made.id) == made
        assert (made.project, made.state, made.trigger) == (PROJECT, "queued", "person")
        assert (made.controls, made.owner) == (("cells", "nuclei"), "ada's token")
        assert (made.parameters, made.created_at) == (parameters, clock.now)
        assert (made.lease, made.attempts, made.manifest, made.report) == (0, 0, {}, {})
        assert sessions.get("unknown") is None

    def test_a_second_request_gets_the_queued_one(self, sessions: Sessions) -> None:
        start = threading.Barrier(8)

        def ask(_: int) -> str:
            start.wait()
            return request(sessions).id

        with ThreadPoolExecutor(8) as pool:
            ids = set(pool.map(ask, range(8)))

        assert len(ids) == 1
        assert [one.id for one in sessions.find()] == [*ids]

    def test_while_one_runs_exactly_one_more_is_queued_and_waits(self, sessions: Sessions) -> None:
        first = request(sessions)
        lease = claim(sessions, first)

        second, third = request(sessions), request(sessions)

        assert first.id != second.id == third.id
        assert sessions.claim(second.id, owner="trainer-2", lease_s=30) is None
        assert sessions.claimable() == []
        sessions.finish(lease, SessionState.COMPLETED, message="done")
        assert [one.id for one in sessions.claimable()] == [second.id]
        claim(sessions, second, "trainer-2")

    def test_other_controls_and_projects_do_not_wait(self, sessions: Sessions) -> None:
        made = [
            request(sessions),
            request(sessions, "nuclei"),
            sessions.request(
                OTHER_PROJECT,
                controls=["cells"],
                trigger=Trigger.POLICY,
                parameters=TrainingParameters(),
            ),
        ]

        assert len({claim(sessions, one).session_id for one in made}) == 3

    def test_the_newest_and_the_last_ended_are_told_apart(
        self, sessions: Sessions, clock: ManualClock
    ) -> None:
        first = request(sessions)
        sessions.finish(claim(sessions, first), SessionState.FAILED, message="no")
        clock.forward(1)
        second = request(sessions)

        newest = sessions.newest(PROJECT, ["cells"])
        ended = sessions.last_ended(PROJECT, ["cells"])

        assert newest is not None
        assert ended is not None
        assert (newest.id, ended.id) == (second.id, first.id)
        assert sessions.last_ended(PROJECT, ["nuclei"]) is None
        assert [one.id for one in sessions.find(PROJECT)] == [second.id, first.id]
        assert [one.id for one in sessions.find(state=SessionState.FAILED)] == [first.id]
        assert [one.id for one in sessions.find(limit=1, after=second)] == [first.id]
        assert sessions.find(OTHER_PROJECT) == []


class TestLeases:
    def test_of_twenty_claims_one_gets_the_lease(self, sessions: Sessions) -> None:
        made = request(sessions)
        start = threading.Barrier(20)

        def try_it(number: int) -> Lease | None:
            start.wait()
            return sessions.claim(made.id, owner=f"trainer-{number}", lease_s=30)

        with ThreadPoolExecutor(20) as pool:
            won = [lease for lease in pool.map(try_it, range(20)) if lease is not None]

        assert [lease.number for lease in won] == [1]
        assert get(sessions, made).attempts == 1

    def test_a_session_whose_trainer_died_is_taken_over(
        self, sessions: Sessions, clock: ManualClock
    ) -> None:
        made = request(sessions)
        dead = claim(sessions, made)
        clock.forward(20)
        sessions.heartbeat(dead, 30)
        clock.forward(29)
        early = (sessions.expired(), sessions.claim(made.id, owner="trainer-2", lease_s=30))
        clock.forward(1)

        expired = [one.id for one in sessions.expired()]
        lease = claim(sessions, made, "trainer-2")

        assert early == ([], None)
        assert expired == [made.id]
        assert lease.number == 2
        assert get(sessions, made).attempts == 2
        assert sessions.expired() == []

    def test_a_trainer_that_only_seemed_dead_cannot_write(
        self, sessions: Sessions, clock: ManualClock
    ) -> None:
        made = request(sessions)
        dead = claim(sessions, made)
        clock.forward(31)
        alive = claim(sessions, made, "trainer-2")
        sessions.note(alive, message="mine")
        sessions.point(alive, POINT)
        before = get(sessions, made)

        for write in (
            lambda: sessions.heartbeat(dead, 30),
            lambda: sessions.note(dead, message="no, mine", report={"a": 1}),
            lambda: sessions.note(dead),
            lambda: sessions.point(dead, replace(POINT, loss=9.0)),
            lambda: sessions.finish(dead, SessionState.COMPLETED, message="done"),
        ):
            with pytest.raises(SessionLost, match="stop working on it") as caught:
                write()
            assert caught.value.code == "session.lost"

        assert get(sessions, made) == before
        assert sessions.curve(made.id) == [POINT]

    def test_one_that_was_late_but_not_taken_over_goes_on(
        self, sessions: Sessions, clock: ManualClock
    ) -> None:
        made = request(sessions)
        lease = claim(sessions, made)
        clock.forward(31)

        assert sessions.heartbeat(lease, 30) is False
        assert sessions.expired() == []

    def test_a_lease_given_back_is_to_be_had_at_once(self, sessions: Sessions) -> None:
        made = request(sessions)
        sessions.heartbeat(claim(sessions, made), 0.0)

        assert [one.id for one in sessions.claimable()] == [made.id]
        assert claim(sessions, made, "trainer-2").number == 2

    @pytest.mark.parametrize("end", sorted(ENDED))
    def test_nobody_writes_to_one_that_has_ended(
        self, sessions: Sessions, end: SessionState
    ) -> None:
        made = request(sessions)
        lease = claim(sessions, made)
        sessions.finish(lease, end, message="over", version="cells-1-p7-v1")

        with pytest.raises(SessionLost):
            sessions.finish(lease, SessionState.COMPLETED, message="again")

        ended = get(sessions, made)
        assert (ended.state, ended.message, ended.version) == (end, "over", "cells-1-p7-v1")
        assert sessions.claim(made.id, owner="trainer-2", lease_s=30) is None

    def test_running_is_no_end(self, sessions: Sessions) -> None:
        lease = claim(sessions, request(sessions))

        with pytest.raises(StoreError, match="cannot end as running"):
            sessions.finish(lease, SessionState.RUNNING, message=None)


class TestNotes:
    def test_each_note_replaces_what_it_names_and_nothing_else(self, sessions: Sessions) -> None:
        made = request(sessions)
        lease = claim(sessions, made)
        sessions.note(lease, progress={"epoch": 1}, report={"left_out": ["task 3"]})
        sessions.note(lease, progress={"step": 9}, manifest={"task_hashes": {"1": "ab"}})
        sessions.note(lease, version="cells-1-p7-v1")
        sessions.finish(lease, SessionState.COMPLETED, message="done")

        noted = get(sessions, made)
        [listed] = sessions.find(with_manifests=False)

        assert (noted.progress, noted.report) == ({"step": 9}, {"left_out": ["task 3"]})
        assert (noted.manifest, noted.version) == ({"task_hashes": {"1": "ab"}}, "cells-1-p7-v1")
        assert listed == replace(noted, manifest={})

    def test_an_epoch_that_is_trained_again_starts_the_rest_of_the_curve_anew(
        self, sessions: Sessions
    ) -> None:
        made = request(sessions)
        lease = claim(sessions, made)
        for epoch in range(1, 6):
            sessions.point(lease, replace(POINT, epoch=epoch))
        again = replace(POINT, epoch=3, validation_loss=0.25, precision=(0.9, 0.5, 0.1))

        sessions.point(lease, again)

        kept = [replace(POINT, epoch=1), replace(POINT, epoch=2), again]
        assert sessions.curve(made.id) == kept
        assert sessions.curve("unknown") == []

    def test_a_loss_that_is_no_number_is_kept_as_that(self, sessions: Sessions) -> None:
        made = request(sessions)
        sessions.point(claim(sessions, made), replace(POINT, loss=math.nan))

        assert math.isnan(sessions.curve(made.id)[0].loss)


class TestNothingToDo:
    def test_one_that_need_not_run_is_completed_in_one_write(
        self, sessions: Sessions, clock: ManualClock
    ) -> None:
        made = request(sessions)
        end: dict[str, Any] = {"owner": "loop", "message": "Nothing.", "manifest": {"a": 1}}

        done = sessions.complete_unrun(made.id, **end)
        again = sessions.complete_unrun(made.id, **end)

        ended = get(sessions, made)
        assert (done, again) == (True, False)
        assert (ended.state, ended.message, ended.manifest) == ("completed", "Nothing.", {"a": 1})
        assert ended.started_at == ended.finished_at == clock.now
        assert sessions.claim(made.id, owner="trainer", lease_s=30) is None

    def test_one_that_somebody_has_claimed_goes_on(self, sessions: Sessions) -> None:
        made = request(sessions)
        lease = claim(sessions, made)

        done = sessions.complete_unrun(made.id, owner="loop", message="Nothing.", manifest={})

        assert not done
        assert sessions.heartbeat(lease, 30) is False

    def test_a_manifest_is_left_out_on_request(self, sessions: Sessions) -> None:
        made = request(sessions)
        sessions.complete_unrun(made.id, owner="loop", message="Nothing.", manifest={"a": 1})

        found = [
            sessions.get(made.id, with_manifest=False),
            sessions.last_ended(PROJECT, ["cells"], with_manifest=False),
        ]

        assert found == [replace(get(sessions, made), manifest={})] * 2


class TestStoppingAndResuming:
    def test_a_queued_one_stops_at_once(self, sessions: Sessions, clock: ManualClock) -> None:
        made = request(sessions)

        stopped = sessions.request_stop(made.id)

        assert (stopped.state, stopped.finished_at) == ("stopped", clock.now)
        assert sessions.claim(made.id, owner="trainer-1", lease_s=30) is None

    def test_a_running_one_hears_of_it_with_its_next_heartbeat(self, sessions: Sessions) -> None:
        made = request(sessions)
        lease = claim(sessions, made)

        asked = sessions.request_stop(made.id)

        assert (asked.state, asked.stop_requested) == ("running", True)
        assert sessions.heartbeat(lease, 30) is True
        sessions.finish(lease, SessionState.STOPPED, message="stopped")
        assert get(sessions, made).stop_requested is False

    def test_one_that_nobody_works_on_stops_at_once(
        self, sessions: Sessions, clock: ManualClock
    ) -> None:
        made = request(sessions)
        dead = claim(sessions, made)
        clock.forward(31)

        assert sessions.request_stop(made.id).state == "stopped"
        with pytest.raises(SessionLost):
            sessions.heartbeat(dead, 30)

    def test_a_stopped_one_is_resumed_under_a_new_lease(self, sessions: Sessions) -> None:
        made = request(sessions)
        lease = claim(sessions, made)
        sessions.note(lease, version="cells-1-p7-v1")
        sessions.point(lease, POINT)
        sessions.finish(lease, SessionState.STOPPED, message="stopped")

        resumed = sessions.resume(made.id)

        assert (resumed.state, resumed.message, resumed.finished_at) == ("queued", None, None)
        assert resumed.version == "cells-1-p7-v1"
        assert claim(sessions, made).number > lease.number
        assert sessions.curve(made.id) == [POINT]
        assert sessions.resume(made.id).state == "running"

    def test_a_completed_one_cannot_be_resumed(self, sessions: Sessions) -> None:
        made = request(sessions)
        sessions.finish(claim(sessions, made), SessionState.COMPLETED, message="done")

        with pytest.raises(Conflict, match="request a new one"):
            sessions.resume(made.id)

    def test_one_cannot_be_resumed_beside_a_queued_one(self, sessions: Sessions) -> None:
        made = request(sessions)
        sessions.request_stop(made.id)
        other = request(sessions)

        with pytest.raises(Conflict, match=other.id):
            sessions.resume(made.id)

    def test_one_that_is_queued_while_another_is_resumed_stands_in_its_way(
        self, sessions: Sessions, database: Database
    ) -> None:
        made = request(sessions)
        sessions.request_stop(made.id)
        rival = dict.fromkeys(("lease", "lease_until", "attempts"), 0)
        with ThreadPoolExecutor(1) as pool:
            with database.write() as transaction:
                transaction.execute(
                    sa.insert(SessionRow).values(
                        id="rival",
                        project=str(PROJECT),
                        target=target_of(["cells"]),
                        state=SessionState.QUEUED,
                        trigger=Trigger.POLICY,
                        parameters=b"{}",
                        progress=b"{}",
                        created_at=0.0,
                        stop_requested=False,
                        **rival,
                    )
                )
                resumed = pool.submit(sessions.resume, made.id)
                time.sleep(0.3)  # PostgreSQL: past its look at what is queued
            with pytest.raises(Conflict, match="stop that one first"):
                resumed.result(timeout=30)

        assert get(sessions, made).state is SessionState.STOPPED

    def test_only_what_has_ended_can_be_deleted(self, sessions: Sessions) -> None:
        made = request(sessions)
        with pytest.raises(Conflict, match="stop it first"):
            sessions.delete(made.id)
        lease = claim(sessions, made)
        sessions.point(lease, POINT)
        with pytest.raises(Conflict, match="stop it first"):
            sessions.delete(made.id)
        sessions.finish(lease, SessionState.FAILED, message="no")

        sessions.delete(made.id)

        assert sessions.get(made.id) is None
        assert sessions.curve(made.id) == []

    @pytest.mark.parametrize("action", ["request_stop", "resume", "delete"])
    def test_an_unknown_one_is_a_sentence(self, sessions: Sessions, action: str) -> None:
        with pytest.raises(StoreError, match="no session 'unknown'"):
            getattr(sessions, action)("unknown")


_serial = itertools.count(1)


def lifecycle(sessions: Sessions, clock: ManualClock) -> type[RuleBasedStateMachine]:
    """Return a machine that trains one target with trainers that die, come back and race."""

    class Lifecycle(RuleBasedStateMachine):
        leases = Bundle("leases")

        def __init__(self) -> None:
            super().__init__()
            self.project = replace(PROJECT, project_id=next(_serial))
            self.states: dict[str, SessionState] = {}  # by age: ids are random
            self.holders: dict[str, tuple[int, float]] = {}  # session -> lease, its end
            self.stops: set[str] = set()

        def ids(self, *states: SessionState) -> list[str]:
            return [one for one, state in self.states.items() if state in states]

        @rule()
        def ask(self) -> None:
            made = sessions.request(
                self.project,
                controls=["cells"],
                trigger=Trigger.POLICY,
                parameters=TrainingParameters(),
            )
            waiting = self.ids(SessionState.QUEUED)
            assert made.state is SessionState.QUEUED
            assert waiting in ([], [made.id])
            self.states[made.id] = SessionState.QUEUED

        @precondition(lambda self: self.states)
        @rule(target=leases, data=st.data(), lease_s=st.sampled_from([0.0, 10.0, 100.0]))
        def take(self, data: st.DataObject, lease_s: float) -> tuple[Lease | None]:
            session_id = data.draw(st.sampled_from(list(self.states)))
            lease = sessions.claim(session_id, owner="a trainer", lease_s=lease_s)
            running = self.ids(SessionState.RUNNING)
            state = self.states[session_id]
            is_free = (state is SessionState.QUEUED and not running) or (
                state is SessionState.RUNNING and self.holders[session_id][1] <= clock.now
            )
            assert (lease is not None) == is_free
            if lease is not None:
                assert lease.number > self.holders.get(session_id, (0, 0.0))[0]
                self.states[session_id] = SessionState.RUNNING
                self.holders[session_id] = (lease.number, clock.now + lease_s)
            return (lease,)

        @rule(seconds=st.sampled_from([1.0, 10.0, 100.0]))
        def wait(self, seconds: float) -> None:
            clock.forward(seconds)

        @rule(
            held=leases,
            what=st.sampled_from(["heartbeat", "note", "point", *sorted(ENDED)]),
        )
        def write(self, held: tuple[Lease | None], what: str) -> None:
            (lease,) = held
            if lease is None:
                return
            number, _ = self.holders[lease.session_id]
            is_running = self.states.get(lease.session_id) is SessionState.RUNNING
            is_mine = number == lease.number and is_running
            try:
                if what == "heartbeat":
                    stop = sessions.heartbeat(lease, 10.0)
                    assert stop == (lease.session_id in self.stops)
                    self.holders[lease.session_id] = (number, clock.now + 10.0)
                elif what == "note":
                    sessions.note(lease, progress={"lease": lease.number})
                elif what == "point":
                    sessions.point(lease, replace(POINT, step=lease.number))
                else:
                    sessions.finish(lease, SessionState(what), message=what)
                    self.states[lease.session_id] = SessionState(what)
                    self.stops.discard(lease.session_id)
                assert is_mine
            except SessionLost:
                assert not is_mine

        @precondition(lambda self: self.states)
        @rule(data=st.data())
        def stop(self, data: st.DataObject) -> None:
            session_id = data.draw(st.sampled_from(list(self.states)))
            state = self.states[session_id]
            is_idle = state is SessionState.QUEUED or (
                state is SessionState.RUNNING and self.holders[session_id][1] <= clock.now
            )
            sessions.request_stop(session_id)
            if is_idle:
                self.states[session_id] = SessionState.STOPPED
                self.stops.discard(session_id)
            elif state is SessionState.RUNNING:
                self.stops.add(session_id)

        @precondition(lambda self: self.states)
        @rule(data=st.data())
        def resume(self, data: st.DataObject) -> None:
            session_id = data.draw(st.sampled_from(list(self.states)))
            state = self.states[session_id]
            may = SessionState.QUEUED in TRANSITIONS[state] and not self.ids(SessionState.QUEUED)
            is_open = state in (SessionState.QUEUED, SessionState.RUNNING)
            try:
                sessions.resume(session_id)
                assert may or is_open
                if not is_open:
                    self.states[session_id] = SessionState.QUEUED
            except Conflict:
                assert not may
                assert not is_open

        @precondition(lambda self: self.ids(*ENDED))
        @rule(data=st.data())
        def delete(self, data: st.DataObject) -> None:
            session_id = data.draw(st.sampled_from(self.ids(*ENDED)))
            sessions.delete(session_id)
            del self.states[session_id]

        @invariant()
        def the_records_say_the_same(self) -> None:
            found = sessions.find(self.project)
            assert {one.id: one.state for one in found} == self.states
            assert len(self.ids(SessionState.QUEUED)) <= 1
            assert len(self.ids(SessionState.RUNNING)) <= 1
            for one in found:
                assert (one.finished_at is not None) == (one.state in ENDED)
                assert one.stop_requested == (one.id in self.stops)

        @invariant()
        def the_last_word_is_the_last_holders(self) -> None:
            for one in sessions.find(self.project):
                said = one.progress.get("lease")
                assert said is None or said <= self.holders[one.id][0]

    return Lifecycle


def test_any_life_of_sessions_keeps_the_rules(sessions: Sessions, clock: ManualClock) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lifecycle(sessions, clock),
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
