"""What kept predictions and open requests promise on every database."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from ml_backend.domain import Prediction, ProjectKey
from ml_backend.store.database import Database
from ml_backend.store.deliveries import Deliveries
from ml_backend.store.open_requests import OpenRequests
from ml_backend.store.predictions import ClaimState, KeptPredictions, PredictionKey
from ml_backend.store.schema import Base, PredictionRow
from tests.contracts import rivals
from tests.fakes import ManualClock

LEASE_S = 10.0


def key(task_id: int = 1, *, version: str = "v1", input_hash: str = "h") -> PredictionKey:
    """Return the key of a task."""
    return PredictionKey(
        project="http://ls#1.2", task_id=task_id, version=version, input_hash=input_hash
    )


def prediction(size: int = 1, *, version: str = "v1") -> Prediction:
    """Return a prediction with `size` regions."""
    regions = [{"id": f"r{n}", "value": {"points": [[n, 1.5]]}} for n in range(size)]
    return Prediction(result=regions, score=0.25, model_version=version)


@pytest.fixture
def clock() -> ManualClock:
    """Return a clock under the test's control."""
    return ManualClock()


@pytest.fixture
def kept(database: Database, clock: ManualClock) -> KeptPredictions:
    """Return empty kept predictions."""
    return KeptPredictions(database, clock=clock)


def keep(kept: KeptPredictions, wanted: PredictionKey, size: int = 1) -> None:
    """Claim and complete a prediction."""
    assert kept.claim(wanted, "owner", lease_s=LEASE_S).state is ClaimState.CLAIMED
    assert kept.complete(wanted, "owner", prediction(size))


class TestExports:
    def test_finished_tasks_are_those_of_one_project_and_version(
        self, kept: KeptPredictions
    ) -> None:
        project = ProjectKey(origin="http://ls", project_id=1, created_at=2)
        for task_id in (3, 1):
            keep(kept, key(task_id))
        keep(kept, key(1, input_hash="changed data"))
        keep(kept, key(5, version="v2"))
        kept.claim(key(7), "owner", lease_s=LEASE_S)

        assert kept.finished_tasks(project, "v1") == [1, 3]
        assert kept.finished_tasks(project, "v3") == []

    def test_of_a_task_whose_data_changed_the_prediction_used_last_is_given(
        self, kept: KeptPredictions, clock: ManualClock
    ) -> None:
        project = ProjectKey(origin="http://ls", project_id=1, created_at=2)
        keep(kept, key(), size=1)
        clock.forward(1)
        keep(kept, key(input_hash="changed data"), size=2)

        found = kept.newest(project, "v1", 1)

        assert found is not None
        assert len(found.result) == 2
        assert kept.newest(project, "v1", 2) is None


class TestClaims:
    def test_a_completed_prediction_is_given_to_whoever_asks(self, kept: KeptPredictions) -> None:
        keep(kept, key(), size=3)

        claim = kept.claim(key(), "other", lease_s=LEASE_S)

        assert claim.state is ClaimState.DONE
        assert claim.prediction == prediction(3)

    def test_a_second_claim_is_pending_even_for_the_same_owner(self, kept: KeptPredictions) -> None:
        kept.claim(key(), "one", lease_s=LEASE_S)

        assert kept.claim(key(), "two", lease_s=LEASE_S).state is ClaimState.PENDING
        assert kept.claim(key(), "one", lease_s=LEASE_S).state is ClaimState.PENDING

    def test_every_part_of_the_key_counts(self, kept: KeptPredictions) -> None:
        keep(kept, key())

        others = [key(2), key(version="v2"), key(input_hash="i")]

        assert [kept.claim(other, "o", lease_s=1).state for other in others] == [
            ClaimState.CLAIMED
        ] * 3

    def test_of_eight_threads_exactly_one_wins(self, kept: KeptPredictions) -> None:
        start = threading.Barrier(8)

        def claim(owner: int) -> list[ClaimState]:
            start.wait()
            return [kept.claim(key(n), f"o{owner}", lease_s=600).state for n in range(6)]

        with ThreadPoolExecutor(8) as pool:
            states = list(pool.map(claim, range(8)))

        for of_task in zip(*states, strict=True):
            assert sorted(of_task) == [ClaimState.CLAIMED] + [ClaimState.PENDING] * 7

    def test_of_two_processes_exactly_one_wins_each_key(self, database: Database) -> None:
        address = database.url.render_as_string(hide_password=False)
        context = multiprocessing.get_context("spawn")
        keys = [key(n) for n in range(40)]

        with context.Manager() as manager, ProcessPoolExecutor(2, mp_context=context) as pool:
            start = manager.Barrier(2)
            won = [
                pool.submit(rivals.count_claims, address, start, keys, owner)
                for owner in ("one", "two")
            ]
            total = sum(count.result() for count in won)

        assert total == 40

    def test_a_lease_that_ran_out_can_be_claimed_by_another(
        self, kept: KeptPredictions, clock: ManualClock
    ) -> None:
        kept.claim(key(), "dead", lease_s=LEASE_S)
        clock.forward(LEASE_S + 0.1)

        assert kept.claim(key(), "heir", lease_s=LEASE_S).state is ClaimState.CLAIMED

    def test_a_renewed_lease_holds(self, kept: KeptPredictions, clock: ManualClock) -> None:
        kept.claim(key(), "one", lease_s=LEASE_S)
        clock.forward(LEASE_S - 1)

        renewed = kept.renew([key(), key(2)], "one", lease_s=LEASE_S)
        clock.forward(LEASE_S - 1)

        assert renewed == 1
        assert kept.claim(key(), "two", lease_s=LEASE_S).state is ClaimState.PENDING

    def test_an_owner_that_was_thought_dead_cannot_write_over_its_heir(
        self, kept: KeptPredictions, clock: ManualClock
    ) -> None:
        kept.claim(key(), "slow", lease_s=LEASE_S)
        clock.forward(LEASE_S + 1)
        kept.claim(key(), "heir", lease_s=LEASE_S)

        assert not kept.complete(key(), "slow", prediction(9))
        assert not kept.fail(key(), "slow", "late")
        assert kept.renew([key()], "slow", lease_s=LEASE_S) == 0
        assert kept.complete(key(), "heir", prediction(1))
        assert kept.get_many([key()]) == {key(): prediction(1)}

    def test_a_late_owner_without_heir_still_counts(
        self, kept: KeptPredictions, clock: ManualClock
    ) -> None:
        kept.claim(key(), "slow", lease_s=LEASE_S)
        clock.forward(LEASE_S + 1)

        assert kept.complete(key(), "slow", prediction())

    def test_what_is_done_stays_done(self, kept: KeptPredictions) -> None:
        keep(kept, key())

        assert not kept.complete(key(), "owner", prediction(9))
        assert not kept.fail(key(), "owner", "too late")

    def test_a_failure_is_not_tried_again_before_its_time(
        self, kept: KeptPredictions, clock: ManualClock
    ) -> None:
        kept.claim(key(), "one", lease_s=LEASE_S)
        kept.fail(key(), "one", "no image", retry_after_s=60)

        early = kept.claim(key(), "two", lease_s=LEASE_S)
        clock.forward(61)
        late = kept.claim(key(), "two", lease_s=LEASE_S)

        assert (early.state, early.message) == (ClaimState.FAILED, "no image")
        assert early.retry_at == clock.now - 1
        assert late.state is ClaimState.CLAIMED

    def test_failures_and_open_claims_are_no_predictions(self, kept: KeptPredictions) -> None:
        kept.claim(key(1), "one", lease_s=LEASE_S)
        kept.claim(key(2), "one", lease_s=LEASE_S)
        kept.fail(key(2), "one", "no image")

        assert kept.get_many([key(1), key(2), key(3)]) == {}


class TestKeeping:
    def test_many_are_read_at_once(self, kept: KeptPredictions) -> None:
        for task_id in range(3):
            keep(kept, key(task_id), size=task_id)

        found = kept.get_many([key(n) for n in range(450)])

        assert found == {key(n): prediction(n) for n in range(3)}

    def test_no_objects_and_no_score_is_a_prediction(self, kept: KeptPredictions) -> None:
        nothing = Prediction(result=[], score=None, model_version="v1")
        kept.claim(key(), "one", lease_s=LEASE_S)

        kept.complete(key(), "one", nothing)

        assert kept.get_many([key()])[key()].to_json() == nothing.to_json()

    def test_pruning_keeps_what_was_used_last_within_the_bound(
        self, kept: KeptPredictions, clock: ManualClock, database: Database
    ) -> None:
        for task_id in range(6):
            keep(kept, key(task_id), size=200)
            clock.forward(100)
        with database.read() as session:
            each = session.scalars(sa.select(PredictionRow.size)).first() or 0
        kept.get_many([key(0)])

        dropped = kept.prune(each * 3 + each // 2)

        assert dropped == 3
        assert set(kept.get_many([key(n) for n in range(6)])) == {key(0), key(4), key(5)}
        assert kept.prune(each * 3) == 0

    def test_pruning_leaves_work_in_hand_and_drops_what_was_abandoned(
        self, kept: KeptPredictions, clock: ManualClock
    ) -> None:
        kept.claim(key(1), "dead", lease_s=LEASE_S)
        kept.claim(key(2), "failed", lease_s=LEASE_S)
        kept.fail(key(2), "failed", "no image", retry_after_s=5)
        clock.forward(LEASE_S + 1)
        kept.claim(key(3), "alive", lease_s=LEASE_S)

        assert kept.prune(0) == 2
        assert kept.complete(key(3), "alive", prediction())

    def test_a_small_table_is_not_pruned(self, kept: KeptPredictions) -> None:
        keep(kept, key())

        assert kept.prune(10**9) == 0

    def test_what_label_studio_was_not_given_is_listed_until_it_is(
        self, kept: KeptPredictions, database: Database
    ) -> None:
        deliveries = Deliveries(database)
        for task_id in (3, 1, 2):
            keep(kept, key(task_id))
        deliveries.mark([key(2), key(99)])

        due = deliveries.due("http://ls#1.2", "v1", limit=5)
        deliveries.mark([wanted for wanted, _ in due])

        assert due == [(key(1), prediction()), (key(3), prediction())]
        assert deliveries.due("http://ls#1.2", "v1", limit=5) == []
        assert deliveries.due("http://ls#1.2", "v2", limit=5) == []

    def test_a_delivery_is_claimed_once_and_can_be_given_back(
        self, kept: KeptPredictions, database: Database
    ) -> None:
        one, other = Deliveries(database), Deliveries(database)
        for task_id in (1, 2):
            keep(kept, key(task_id))

        first = one.claim([key(1)])
        second = other.claim([key(1), key(2), key(99)])
        one.give_back(first)
        again = other.claim([key(1), key(2)])

        assert (first, second, again) == ([key(1)], [key(2)], [key(1)])


class TestOpenRequests:
    def test_a_task_is_open_from_its_request_until_the_grace_is_over(
        self, database: Database, clock: ManualClock
    ) -> None:
        requests = OpenRequests(database, clock=clock)
        request_id = requests.open("p", "v", [1, 2, 2], expires_s=80)

        during = requests.is_open("p", "v", [1, 3])
        requests.close(request_id, grace_s=15)
        clock.forward(14)
        in_grace = requests.is_open("p", "v", [1, 2])
        clock.forward(2)

        assert during == {1}
        assert in_grace == {1, 2}
        assert requests.is_open("p", "v", [1, 2]) == set()

    def test_another_request_for_the_same_task_keeps_it_open(
        self, database: Database, clock: ManualClock
    ) -> None:
        requests = OpenRequests(database, clock=clock)
        first = requests.open("p", "v", [1], expires_s=80)
        requests.open("p", "v", [1], expires_s=80)

        requests.close(first)

        assert requests.is_open("p", "v", [1]) == {1}

    def test_a_request_whose_process_died_expires(
        self, database: Database, clock: ManualClock
    ) -> None:
        requests = OpenRequests(database, clock=clock)
        requests.open("p", "v", range(1200), expires_s=80)
        clock.forward(81)

        assert requests.is_open("p", "v", range(1200)) == set()

    def test_projects_and_versions_are_apart(self, database: Database) -> None:
        requests = OpenRequests(database)
        requests.open("p", "v", [1], expires_s=80)

        assert requests.is_open("p", "w", [1]) == set()
        assert requests.is_open("q", "v", [1]) == set()


@dataclass
class _Expected:
    """What the model says of one key."""

    state: str = "free"
    owner: str = ""
    until: float = 0.0
    size: int = 0


class ClaimMachine(RuleBasedStateMachine):
    """Any order of calls by three owners on two tasks, against a model in plain Python."""

    database: Database

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.kept = KeptPredictions(self.database, clock=self.clock)
        self.expected = {n: _Expected() for n in (1, 2)}
        with self.database.write() as session:
            for table in Base.metadata.sorted_tables:
                session.execute(table.delete())

    tasks = st.sampled_from([1, 2])
    owners = st.sampled_from(["a", "b", "c"])

    @rule(task=tasks, owner=owners)
    def claim(self, task: int, owner: str) -> None:
        expected = self.expected[task]
        is_over = expected.until <= self.clock.now

        claim = self.kept.claim(key(task), owner, lease_s=LEASE_S)

        if expected.state == "free" or (expected.state in ("pending", "failed") and is_over):
            assert claim.state is ClaimState.CLAIMED
            self.expected[task] = _Expected("pending", owner, self.clock.now + LEASE_S)
        else:
            assert claim.state == expected.state

    @rule(task=tasks, owner=owners)
    def renew(self, task: int, owner: str) -> None:
        expected = self.expected[task]
        holds = expected.state == "pending" and expected.owner == owner

        assert self.kept.renew([key(task)], owner, lease_s=LEASE_S) == int(holds)

        if holds:
            expected.until = self.clock.now + LEASE_S

    @rule(task=tasks, owner=owners, size=st.integers(0, 3))
    def complete(self, task: int, owner: str, size: int) -> None:
        expected = self.expected[task]
        holds = expected.state == "pending" and expected.owner == owner

        assert self.kept.complete(key(task), owner, prediction(size)) == holds

        if holds:
            self.expected[task] = _Expected("done", owner, 0.0, size)

    @rule(task=tasks, owner=owners)
    def fail(self, task: int, owner: str) -> None:
        expected = self.expected[task]
        holds = expected.state == "pending" and expected.owner == owner

        assert self.kept.fail(key(task), owner, "no", retry_after_s=LEASE_S) == holds

        if holds:
            self.expected[task] = _Expected("failed", owner, self.clock.now + LEASE_S)

    @rule(seconds=st.sampled_from([1.0, LEASE_S + 1]))
    def wait(self, seconds: float) -> None:
        self.clock.forward(seconds)

    @rule()
    def prune_what_is_over(self) -> None:
        self.kept.prune(10**9)

        for task, expected in self.expected.items():
            if expected.state in ("pending", "failed") and expected.until <= self.clock.now:
                self.expected[task] = _Expected()

    @invariant()
    def only_what_is_done_is_given(self) -> None:
        done = {key(n): prediction(e.size) for n, e in self.expected.items() if e.state == "done"}
        assert self.kept.get_many([key(1), key(2)]) == done


@pytest.fixture
def machine(database: Database) -> type[ClaimMachine]:
    """Return the machine over these records."""

    class Machine(ClaimMachine):
        pass

    Machine.database = database
    return Machine


class TestClaimMachine:
    def test_any_order_of_calls_agrees_with_the_model(self, machine: type[ClaimMachine]) -> None:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=15,
                stateful_step_count=20,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
