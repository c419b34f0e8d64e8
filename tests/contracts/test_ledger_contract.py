"""What the annotation ledger promises on every database."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_backend.domain import ProjectKey
from ml_backend.errors import StoreError
from ml_backend.learning import Annotation, LabelledTask
from ml_backend.store.annotations import AnnotationLedger, Reconciled
from ml_backend.store.database import Database
from ml_backend.store.schema import LedgerAnnotationRow, LedgerResultRow, LedgerTaskRow
from tests.contracts.learning_records import OTHER_PROJECT, PROJECT, annotation, region, task
from tests.fakes import ManualClock

DAY_S = 86400.0


@pytest.fixture
def clock() -> ManualClock:
    """Return our clock."""
    return ManualClock()


@pytest.fixture
def ledger(database: Database, clock: ManualClock) -> AnnotationLedger:
    """Return an empty ledger."""
    return AnnotationLedger(database, clock=clock)


def ids(ledger: AnnotationLedger, project: ProjectKey = PROJECT) -> list[int]:
    """Return the ids of the counted annotations."""
    return [one.annotation_id for one in ledger.counted(project)]


class TestEvents:
    def test_an_annotation_comes_back_as_it_came(self, ledger: AnnotationLedger) -> None:
        drawn = annotation(10, 5.25, 1, 2, ground_truth=True, completed_by=3, parent_prediction=99)

        changed = ledger.record(PROJECT, drawn, task(1))

        [kept] = ledger.counted(PROJECT)
        assert changed
        assert replace(kept, content_hash="") == drawn
        assert kept.content_hash
        assert ledger.task(PROJECT, 1) == task(1)
        assert ledger.tasks(PROJECT) == [task(1)]
        assert ledger.projects() == [PROJECT]

    def test_the_newest_state_of_an_annotation_wins(self, ledger: AnnotationLedger) -> None:
        changes = [
            ledger.record(PROJECT, annotation(10, at, drawn), task(1))
            for at, drawn in ((20.0, 1), (10.0, 2), (30.0, 3), (20.0, 1))
        ]

        [kept] = ledger.counted(PROJECT)
        assert changes == [True, False, True, False]
        assert kept.result == [region(3)]

    def test_of_two_states_of_one_time_the_same_wins_in_either_order(
        self, ledger: AnnotationLedger
    ) -> None:
        for project, order in ((PROJECT, (1, 2)), (OTHER_PROJECT, (2, 1))):
            for drawn in order:
                ledger.record(project, annotation(10, 20.0, drawn), task(1))

        assert ledger.counted(PROJECT) == ledger.counted(OTHER_PROJECT)

    def test_the_same_event_twice_counts_once(
        self, ledger: AnnotationLedger, clock: ManualClock
    ) -> None:
        ledger.record(PROJECT, annotation(10, 20.0, 1), task(1))
        first = ledger.last_change(PROJECT)
        clock.forward(60)

        assert not ledger.record(PROJECT, annotation(10, 20.0, 1), task(1))
        assert ledger.last_change(PROJECT) == first == clock.now - 60

    def test_the_tasks_that_were_annotated_last_come_first(self, ledger: AnnotationLedger) -> None:
        ledger.record(PROJECT, annotation(10, 20.0, 1, task_id=1), task(1))
        ledger.record(PROJECT, annotation(11, 90.0, 1, task_id=1), task(1))
        ledger.record(PROJECT, annotation(20, 30.0, 1, task_id=2), task(2))
        ledger.record(PROJECT, annotation(30, 99.0, task_id=3, cancelled=True), task(3))
        ledger.record(PROJECT, annotation(40, 30.0, 1, task_id=4), task(4))
        ledger.record(OTHER_PROJECT, annotation(50, 99.0, 1, task_id=5), task(5))

        assert ledger.newest_tasks(PROJECT, most=10) == [1, 4, 2]
        assert ledger.newest_tasks(PROJECT, most=2) == [1, 4]

    def test_skipped_ones_do_not_count_and_empty_ones_do(self, ledger: AnnotationLedger) -> None:
        ledger.record(PROJECT, annotation(10, 20.0, cancelled=True), task(1))
        ledger.record(PROJECT, annotation(20, 20.0), task(2))

        assert ids(ledger) == [20]
        assert list(ledger.task_hashes(PROJECT)) == [2]
        assert ledger.tasks(PROJECT) == [task(2)]
        assert ledger.count(PROJECT) == 1

    def test_a_deletion_wins_whether_it_comes_before_or_after(
        self, ledger: AnnotationLedger
    ) -> None:
        ledger.record(PROJECT, annotation(10, 20.0, 1), task(1))

        removed = ledger.remove(PROJECT, [10, 11], at=21.0)
        late = ledger.record(PROJECT, annotation(11, 20.0, 1), task(1))

        assert (removed, late) == (1, False)
        assert ids(ledger) == []
        assert ledger.projects() == []

    def test_a_deletion_wins_although_our_clock_is_behind(self, ledger: AnnotationLedger) -> None:
        ledger.record(PROJECT, annotation(10, 1000.0, 1), task(1))

        assert ledger.remove(PROJECT, [10], at=900.0) == 1
        assert not ledger.record(PROJECT, annotation(10, 1001.0, 1), task(1))
        assert ids(ledger) == []

    def test_an_id_that_is_given_again_long_after_counts_again(
        self, ledger: AnnotationLedger
    ) -> None:
        ledger.record(PROJECT, annotation(10, 1000.0, 1), task(1))
        ledger.remove(PROJECT, [10], at=1001.0)

        assert ledger.record(PROJECT, annotation(10, 1001.0 + DAY_S, 2), task(1))
        assert [one.result for one in ledger.counted(PROJECT)] == [[region(2)]]

    def test_a_deleted_task_takes_its_annotations_with_it_also_late_ones(
        self, ledger: AnnotationLedger
    ) -> None:
        for number in (10, 20):
            ledger.record(PROJECT, annotation(number, 20.0, 1), task(number // 10))

        removed = ledger.remove_tasks(PROJECT, [1, 3], at=21.0)
        for number in (11, 30):
            assert not ledger.record(PROJECT, annotation(number, 20.0, 1), task(number // 10))

        assert removed == 1
        assert ids(ledger) == [20]
        assert ledger.task(PROJECT, 1) is None

    def test_the_data_of_a_task_are_those_of_its_newest_word(
        self, ledger: AnnotationLedger
    ) -> None:
        ledger.record(PROJECT, annotation(10, 30.0, 1), task(1, {"image": "new"}))
        ledger.record(PROJECT, annotation(11, 20.0, 1), task(1, {"image": "old"}))
        ledger.record_task(PROJECT, task(1, {"image": "as imported"}))
        ledger.record(PROJECT, annotation(12, 40.0, 1), None)

        assert ledger.task(PROJECT, 1) == task(1, {"image": "new"})

    def test_two_servers_with_the_same_ids_share_nothing(self, ledger: AnnotationLedger) -> None:
        ledger.record(PROJECT, annotation(10, 20.0, 1), task(1))
        ledger.record(OTHER_PROJECT, annotation(10, 20.0, 2), task(1))
        ledger.remove(PROJECT, [10], at=30.0)

        assert (ids(ledger), ids(ledger, OTHER_PROJECT)) == ([], [10])
        assert ledger.projects() == [OTHER_PROJECT]

    def test_an_annotation_that_is_too_large_leaves_with_a_sentence(
        self, database: Database, clock: ManualClock
    ) -> None:
        ledger = AnnotationLedger(database, clock=clock, max_bytes=400)
        large = annotation(10, 20.0, 1, result=[region(1, noise=os.urandom(300).hex())])
        ledger.record(PROJECT, annotation(10, 10.0, 1), task(1))

        ledger.record(PROJECT, large, task(1))
        [(number, sentence)] = ledger.problems(PROJECT).items()
        refused = ids(ledger)
        ledger.record(PROJECT, annotation(10, 30.0, 2), task(1))

        assert (number, refused) == (10, [])
        assert "split it" in sentence
        assert ids(ledger) == [10]
        assert ledger.problems(PROJECT) == {}

    def test_what_json_cannot_hold_is_refused_with_a_sentence(
        self, ledger: AnnotationLedger
    ) -> None:
        with pytest.raises(StoreError, match="no JSON"):
            ledger.record(PROJECT, annotation(10, 1.0, result=[{"value": {1, 2}}]), None)

    def test_twenty_threads_end_with_the_newest_state(self, ledger: AnnotationLedger) -> None:
        start = threading.Barrier(20)

        def record(number: int) -> None:
            start.wait()
            ledger.record(PROJECT, annotation(10 + number % 2, 100.0 + number, number), task(1))

        with ThreadPoolExecutor(20) as pool:
            for done in [pool.submit(record, number) for number in range(20)]:
                done.result()

        assert [one.result for one in ledger.counted(PROJECT)] == [[region(18)], [region(19)]]


class TestHashes:
    @pytest.mark.parametrize(
        "changed",
        [
            annotation(10, 20.0, 1, 3),
            annotation(10, 20.0, 2, 1),
            annotation(10, 20.0, 1, 2, ground_truth=True),
            annotation(10, 20.0, 1, 2, parent_prediction=4),
            annotation(10, 20.0, result=[region(1, origin="manual"), region(2)]),
        ],
    )
    def test_what_changes_what_is_learned_changes_the_hash_of_the_task(
        self, ledger: AnnotationLedger, changed: Annotation
    ) -> None:
        ledger.record(PROJECT, annotation(10, 10.0, 1, 2), task(1))
        before = ledger.task_hashes(PROJECT)

        ledger.record(PROJECT, changed, task(1))

        assert before.keys() == ledger.task_hashes(PROJECT).keys()
        assert before != ledger.task_hashes(PROJECT)

    @pytest.mark.parametrize(
        "changed",
        [
            annotation(10, 20.0, 1, 2),
            annotation(10, 20.0, result=[region(1, score=0.5), region(2, meta={"text": ["?"]})]),
            annotation(10, 20.0, 1, 2, completed_by=4),
        ],
    )
    def test_what_does_not_change_it_does_not(
        self, ledger: AnnotationLedger, changed: Annotation
    ) -> None:
        ledger.record(PROJECT, annotation(10, 10.0, 1, 2), task(1))
        before = ledger.task_hashes(PROJECT)

        ledger.record(PROJECT, changed, task(1))

        assert before == ledger.task_hashes(PROJECT)

    def test_another_annotation_another_image_and_a_skip_change_it(
        self, ledger: AnnotationLedger
    ) -> None:
        seen = []
        for step in (
            annotation(10, 10.0, 1),
            annotation(11, 20.0, 1),
            annotation(11, 30.0, cancelled=True),
        ):
            ledger.record(PROJECT, step, task(1))
            seen.append(ledger.task_hashes(PROJECT)[1])
        ledger.record_task(PROJECT, task(1, {"image": "other"}), updated_at=40.0)
        seen.append(ledger.task_hashes(PROJECT)[1])

        assert seen[0] == seen[2]
        assert len(set(seen)) == 3


class TestStamps:
    def test_the_stamp_is_equal_while_the_hashes_are_and_changes_with_them(
        self, ledger: AnnotationLedger, clock: ManualClock
    ) -> None:
        changes: list[Callable[[], object]] = [
            lambda: ledger.record(PROJECT, annotation(10, 20.0, 1, task_id=1), task(1)),
            lambda: ledger.record(PROJECT, annotation(20, 20.0, 1, task_id=2), task(2)),
            lambda: ledger.record(PROJECT, annotation(20, 30.0, 2, task_id=2), task(2)),
            lambda: ledger.record_task(PROJECT, replace(task(2), data={"a": 1}), updated_at=99.0),
            lambda: ledger.remove(PROJECT, [10], at=clock()),
            lambda: ledger.remove_tasks(PROJECT, [2], at=clock()),
            lambda: ledger.reconcile(
                PROJECT, [annotation(30, 20.0, task_id=3)], [task(3)], taken_at=clock()
            ),
        ]
        stamps, hashes = [ledger.stamp(PROJECT)], [ledger.task_hashes(PROJECT)]
        for change in changes:
            clock.forward(1)
            change()
            assert ledger.stamp(PROJECT) == ledger.stamp(PROJECT)
            stamps.append(ledger.stamp(PROJECT))
            hashes.append(ledger.task_hashes(PROJECT))

        assert all(one != other for one, other in itertools.pairwise(hashes))
        assert len(set(stamps)) == len(stamps)
        assert ledger.stamp(OTHER_PROJECT) == stamps[0]


class TestProjects:
    @pytest.mark.parametrize("created_at", [-5, 10**18])
    def test_a_key_that_nobody_can_read_hides_no_other(
        self, ledger: AnnotationLedger, created_at: int
    ) -> None:
        for project in (replace(PROJECT, created_at=created_at), PROJECT):
            ledger.record(project, annotation(10, 20.0, 1), task(1))

        assert ledger.projects() == [PROJECT]


class TestSnapshots:
    def take(
        self,
        ledger: AnnotationLedger,
        clock: ManualClock,
        *found: Annotation,
        only_tasks: list[int] | None = None,
    ) -> Reconciled:
        """Work in a snapshot that takes ten seconds."""
        taken_at = clock.now
        clock.forward(10)
        tasks = {one.task_id: task(one.task_id) for one in found}
        return ledger.reconcile(
            PROJECT, found, tasks.values(), taken_at=taken_at, only_tasks=only_tasks
        )

    def test_what_was_missed_comes_and_what_was_deleted_leaves(
        self, ledger: AnnotationLedger, clock: ManualClock
    ) -> None:
        for number in (10, 20, 30):
            ledger.record(PROJECT, annotation(number, 20.0, 1), task(number // 10))

        found = [annotation(10, 20.0, 1), annotation(20, 30.0, 2), annotation(40, 30.0, 1)]
        changes = self.take(ledger, clock, *found)
        again = self.take(ledger, clock, *found)

        assert changes == Reconciled(added=1, changed=1, removed=1)
        assert not again
        assert ids(ledger) == [10, 20, 40]
        assert ledger.task(PROJECT, 3) is None

    def test_what_came_while_it_was_read_stays_as_it_is(
        self, ledger: AnnotationLedger, clock: ManualClock
    ) -> None:
        ledger.record(PROJECT, annotation(10, 20.0, 1), task(1))
        taken_at = clock.now
        clock.forward(5)
        ledger.record(PROJECT, annotation(10, 30.0, 2), task(1))
        ledger.record(PROJECT, annotation(20, 30.0, 1), task(2))
        ledger.remove(PROJECT, [30], at=clock.now)

        found = [annotation(10, 20.0, 1), annotation(30, 20.0, 1)]
        ledger.reconcile(PROJECT, found, [task(1), task(3)], taken_at=taken_at)

        assert [one.result for one in ledger.counted(PROJECT)] == [[region(2)], [region(1)]]
        assert ids(ledger) == [10, 20]

    def test_what_was_taken_for_deleted_comes_back(
        self, ledger: AnnotationLedger, clock: ManualClock
    ) -> None:
        ledger.record(PROJECT, annotation(10, 20.0, 1), task(1))
        ledger.record(PROJECT, annotation(20, 20.0, 1), task(2))
        ledger.remove(PROJECT, [10], at=clock.now)
        ledger.remove_tasks(PROJECT, [2], at=clock.now)
        clock.forward(1)

        changes = self.take(ledger, clock, annotation(10, 20.0, 1), annotation(20, 20.0, 1))

        assert changes == Reconciled(added=2, changed=0, removed=0)
        assert [one.result for one in ledger.counted(PROJECT)] == [[region(1)], [region(1)]]
        assert ledger.tasks(PROJECT) == [task(1), task(2)]

    def test_a_deletion_heard_of_again_does_not_undo_that(
        self, ledger: AnnotationLedger, clock: ManualClock
    ) -> None:
        ledger.record(PROJECT, annotation(10, 20.0, 1), task(1))
        heard_at = clock.now
        clock.forward(1)
        self.take(ledger, clock, annotation(10, 20.0, 1))

        assert ledger.remove(PROJECT, [10], at=heard_at) == 0
        assert ids(ledger) == [10]

    def test_one_that_a_snapshot_overlooked_comes_back_with_its_next_event(
        self, ledger: AnnotationLedger, clock: ManualClock
    ) -> None:
        ledger.record(PROJECT, annotation(10, clock.now - 5, 1), task(1))
        self.take(ledger, clock)
        assert ids(ledger) == []

        assert not ledger.record(PROJECT, annotation(10, clock.now - 15, 1), task(1))
        assert ledger.record(PROJECT, annotation(10, clock.now, 2), task(1))
        assert ids(ledger) == [10]

    def test_a_label_studio_that_was_put_back_is_followed(
        self, ledger: AnnotationLedger, clock: ManualClock
    ) -> None:
        ledger.record(PROJECT, annotation(10, clock.now, 2), task(1))
        clock.forward(1)

        changes = self.take(ledger, clock, annotation(10, clock.now - DAY_S, 1))

        assert changes == Reconciled(added=0, changed=1, removed=0)
        assert [one.result for one in ledger.counted(PROJECT)] == [[region(1)]]

    def test_a_snapshot_of_some_tasks_says_nothing_of_others(
        self, ledger: AnnotationLedger, clock: ManualClock
    ) -> None:
        for number in (10, 11, 20):
            ledger.record(PROJECT, annotation(number, 20.0, 1), task(number // 10))

        changes = self.take(ledger, clock, annotation(10, 20.0, 1), only_tasks=[1])

        assert changes == Reconciled(added=0, changed=0, removed=1)
        assert ids(ledger) == [10, 20]

    def test_one_that_breaks_off_removes_nothing(
        self, ledger: AnnotationLedger, clock: ManualClock
    ) -> None:
        ledger.record(PROJECT, annotation(10, 20.0, 1), task(1))

        def broken() -> Iterator[Annotation]:
            yield annotation(20, 20.0, 1)
            raise ConnectionError

        with pytest.raises(ConnectionError):
            ledger.reconcile(PROJECT, broken(), [task(2)], taken_at=clock.now)

        assert 10 in ids(ledger)

    def test_hundreds_of_annotations_are_worked_in(
        self, ledger: AnnotationLedger, clock: ManualClock
    ) -> None:
        found = [annotation(number, 20.0, number) for number in range(10, 620)]

        first = self.take(ledger, clock, *found)
        second = self.take(ledger, clock, *found[:5])

        assert first == Reconciled(added=610, changed=0, removed=0)
        assert second == Reconciled(added=0, changed=0, removed=605)
        assert len(ledger.counted(PROJECT, task_ids=range(100))) == 5


class TestTraces:
    def test_traces_of_deleted_ones_go_after_half_a_year(
        self, ledger: AnnotationLedger, database: Database, clock: ManualClock
    ) -> None:
        for number in (10, 20, 30):
            ledger.record(PROJECT, annotation(number, 20.0, 1), task(number // 10))
        ledger.remove(PROJECT, [10, 99], at=30.0)
        ledger.remove_tasks(PROJECT, [2], at=30.0)
        clock.forward(179 * DAY_S)
        early = ledger.prune()
        clock.forward(2 * DAY_S)

        late = ledger.prune()

        assert (early, late) == (0, 4)
        assert ids(ledger) == [30]
        with database.read() as session:
            kept = session.scalars(sa.select(LedgerAnnotationRow.annotation_id)).all()
            tasks = session.scalars(sa.select(LedgerTaskRow.task_id).order_by("task_id")).all()
        assert (kept, tasks) == ([30], [1, 3])

    def test_the_drawing_of_a_deleted_one_goes_at_once(
        self, ledger: AnnotationLedger, database: Database
    ) -> None:
        ledger.record(PROJECT, annotation(10, 20.0, 1), task(1))
        ledger.remove(PROJECT, [10], at=30.0)

        with database.read() as session:
            assert session.scalars(sa.select(LedgerResultRow.annotation_id)).all() == []


NUMBERS = st.sampled_from([10, 11, 20])
TIMES = st.sampled_from([1000.0, 1001.0, 4000.0, 9000.0, 9001.0])
Fact = tuple[Any, ...]
Event = Callable[[AnnotationLedger, ProjectKey], object]
FACTS: st.SearchStrategy[Fact] = st.one_of(
    st.tuples(st.just("record"), NUMBERS, TIMES, st.integers(1, 3), st.booleans(), st.booleans()),
    st.tuples(st.just("remove"), st.lists(NUMBERS, min_size=1, max_size=2), TIMES),
    st.tuples(st.just("remove_tasks"), st.lists(st.sampled_from([1, 2]), min_size=1), TIMES),
    st.tuples(st.just("record_task"), st.sampled_from([1, 2]), st.integers(1, 2)),
)
_serial = itertools.count(1)


def tell(ledger: AnnotationLedger, project: ProjectKey, fact: Fact) -> None:
    """Have the ledger hear a fact."""
    match fact:
        case ("record", number, at, drawn, cancelled, with_task):
            told = task(number // 10, {"image": f"{at} {drawn}"}) if with_task else None
            ledger.record(project, annotation(number, at, drawn, cancelled=cancelled), told)
        case ("remove", numbers, at):
            ledger.remove(project, numbers, at=at)
        case ("remove_tasks", numbers, at):
            ledger.remove_tasks(project, numbers, at=at)
        case ("record_task", number, image):
            ledger.record_task(project, task(number, {"image": f"imported {image}"}))


def state(ledger: AnnotationLedger, project: ProjectKey) -> tuple[Any, ...]:
    """Return all that can be asked of a project."""
    return (
        ledger.counted(project),
        ledger.task_hashes(project),
        [ledger.task(project, number) for number in (1, 2)],
        ledger.count(project),
    )


class TestAnyOrder:
    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(data=st.data(), facts=st.lists(FACTS, min_size=1, max_size=7))
    def test_events_in_any_order_and_any_number_end_in_the_same_state(
        self, ledger: AnnotationLedger, clock: ManualClock, data: st.DataObject, facts: list[Fact]
    ) -> None:
        shuffled = data.draw(st.permutations(facts + data.draw(st.lists(st.sampled_from(facts)))))
        projects = [replace(PROJECT, project_id=next(_serial)) for _ in range(2)]
        for project, told in zip(projects, (facts, shuffled), strict=True):
            for fact in told:
                clock.forward(1)
                tell(ledger, project, fact)

        assert state(ledger, projects[0]) == state(ledger, projects[1])

    @settings(
        max_examples=40,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(data=st.data())
    def test_a_ledger_whose_events_are_late_lost_or_doubled_ends_as_label_studio_is(
        self, ledger: AnnotationLedger, clock: ManualClock, data: st.DataObject
    ) -> None:
        project = replace(PROJECT, project_id=next(_serial))
        site = Site(clock, skew_s=data.draw(st.sampled_from([-7200.0, 0.0, 7200.0])))
        under_way: list[Event] = []
        for _ in range(data.draw(st.integers(1, 12))):
            clock.forward(data.draw(st.sampled_from([1.0, 60.0, 5000.0])))
            match data.draw(st.sampled_from(["save", "delete", "delete task", "hear", "read"])):
                case "save":
                    under_way.append(site.save(data.draw(NUMBERS), data.draw(st.integers(1, 9))))
                case "delete":
                    under_way.append(site.delete(data.draw(NUMBERS)))
                case "delete task":
                    under_way.append(site.delete_task(data.draw(st.sampled_from([1, 2]))))
                case "hear" if under_way:
                    event = data.draw(st.sampled_from(under_way))
                    if data.draw(st.booleans()):  # else it is heard of again, or was never sent
                        under_way.remove(event)
                    event(ledger, project)
                case "read":
                    ledger.reconcile(project, *site.read(), taken_at=clock.now)

        for event in under_way:
            event(ledger, project)
        clock.forward(1)
        ledger.reconcile(project, *site.read(), taken_at=clock.now)

        kept = {one.annotation_id: (one.updated_at, one.result) for one in ledger.counted(project)}
        assert kept == {
            number: (one.updated_at, one.result) for number, one in site.annotations.items()
        }


class Site:
    """A Label Studio with a clock of its own; what it does is told by events."""

    def __init__(self, clock: ManualClock, *, skew_s: float) -> None:
        self.annotations: dict[int, Annotation] = {}
        self._clock = clock
        self._skew_s = skew_s
        self._generation = 0

    def save(self, number: int, drawn: int) -> Event:
        """Create or change an annotation; a deleted one's id is never given again."""
        number += 100 * self._generation
        saved = annotation(number, self._clock.now + self._skew_s, drawn)
        self.annotations[number] = saved
        return lambda ledger, project: ledger.record(project, saved, task(saved.task_id))

    def delete(self, number: int) -> Event:
        """Delete an annotation."""
        number += 100 * self._generation
        gone = [number] if self.annotations.pop(number, None) else []
        self._generation += bool(gone)
        at = self._clock.now
        return lambda ledger, project: ledger.remove(project, gone, at=at)

    def delete_task(self, number: int) -> Event:
        """Delete a task and all in it."""
        number += 10 * self._generation
        gone = [one for one in self.annotations.values() if one.task_id == number]
        for one in gone:
            del self.annotations[one.annotation_id]
        self._generation += 1
        at = self._clock.now
        return lambda ledger, project: ledger.remove_tasks(project, [number], at=at)

    def read(self) -> tuple[list[Annotation], list[LabelledTask]]:
        """Return all there is, as the API tells it."""
        found = list(self.annotations.values())
        return found, [task(number) for number in sorted({one.task_id for one in found})]
