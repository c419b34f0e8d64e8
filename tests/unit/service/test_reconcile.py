"""What events did not tell is found by asking, and asking is cheap."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_backend.service.reconcile import DOUBT_S, FULL_EVERY_S
from ml_backend.store.annotations import Reconciled
from tests.unit.service.learning_desk import KEY, LearningDesk, open_desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[LearningDesk]:
    desk = open_desk(tmp_path)
    desk.introduce()
    for task_id in (1, 2, 3):
        desk.annotate(task_id)
    desk.event_ledger.work()
    desk.clock.forward(60)
    yield desk
    desk.database.close()


def look(desk: LearningDesk) -> Reconciled | None:
    """Reconcile a minute later; forget what was asked before."""
    desk.clock.forward(60)
    desk.label_studio.asked.clear()
    return desk.reconciler.try_to_reconcile(KEY)


def is_equal(desk: LearningDesk) -> bool:
    """Return whether the ledger is what Label Studio has."""
    ours = {(one.annotation_id, one.updated_at) for one in desk.ledger.counted(KEY)}
    rows = desk.label_studio.rows.values()
    return ours == {(row.annotation_id, row.updated_at) for row in rows if not row.cancelled}


def test_nothing_is_found_where_every_event_came(desk: LearningDesk) -> None:
    assert not look(desk)
    assert is_equal(desk)


def test_lost_events_of_every_kind_are_made_good(desk: LearningDesk) -> None:
    look(desk)
    desk.clock.forward(60)
    desk.label_studio.save(101, 1, "changed")
    desk.label_studio.delete(102)
    desk.label_studio.save(104, 4)
    desk.label_studio.save(103, 3, cancelled=True)

    changes = look(desk)

    assert changes == Reconciled(added=1, changed=1, removed=2)
    assert is_equal(desk)


def test_a_second_look_asks_only_for_what_changed(desk: LearningDesk) -> None:
    look(desk)
    assert desk.label_studio.asked == ["all", "task 1", "task 2", "task 3"]

    look(desk)
    assert desk.label_studio.asked == ["changed"]

    desk.label_studio.save(102, 2, "changed")
    look(desk)
    assert desk.label_studio.asked == ["changed", "task 2"]


def test_a_task_that_is_gone_shows_in_the_number_of_annotations(desk: LearningDesk) -> None:
    look(desk)
    desk.label_studio.delete_task(2)

    look(desk)
    first = list(desk.label_studio.asked)
    is_due = [desk.reconciler.is_due(KEY)]
    desk.clock.forward(DOUBT_S)
    is_due.append(desk.reconciler.is_due(KEY))
    look(desk)

    assert first == ["changed"]  # its event may be on the way
    assert is_due == [False, True]
    assert desk.label_studio.asked[:2] == ["changed", "all"]
    assert is_equal(desk)


def test_a_number_that_is_right_again_at_the_second_look_leads_to_no_whole_reading(
    desk: LearningDesk,
) -> None:
    look(desk)
    for task_id in (2, 3):
        desk.label_studio.delete_task(task_id)
        look(desk)
        desk.send("TASKS_DELETED", tasks=[{"id": task_id}])
        desk.event_ledger.work()
        look(desk)
        assert desk.label_studio.asked == ["changed"]


def test_while_events_wait_a_different_number_says_nothing(desk: LearningDesk) -> None:
    look(desk)
    desk.label_studio.delete_task(2)
    desk.send("TASKS_DELETED", tasks=[{"id": 2}])
    for _ in range(3):
        look(desk)
        assert desk.label_studio.asked == ["changed"]

    desk.event_ledger.work()
    look(desk)

    assert desk.label_studio.asked == ["changed"]
    assert is_equal(desk)


def test_numbers_that_never_agree_do_not_lead_to_whole_readings_for_ever(
    desk: LearningDesk,
) -> None:
    desk.label_studio.save(109, 9)
    hidden = desk.label_studio.touched.pop(9)  # Label Studio counts what it does not list
    assert hidden

    look(desk)
    for task_id in (1, 2, 3):
        desk.annotate(task_id, "more", annotation_id=200 + task_id)
        desk.event_ledger.work()
        look(desk)

        assert desk.label_studio.asked == ["changed", f"task {task_id}"]


def test_everything_is_read_again_now_and_then(desk: LearningDesk) -> None:
    look(desk)
    desk.clock.forward(FULL_EVERY_S)

    look(desk)

    assert desk.label_studio.asked[0] == "all"


def test_without_credentials_the_events_alone_count(desk: LearningDesk) -> None:
    desk.has_credentials = False
    desk.label_studio.delete(101)

    assert look(desk) is None
    assert len(desk.ledger.counted(KEY)) == 3
    assert not desk.reconciler.is_due(KEY)


def test_a_label_studio_that_is_away_changes_nothing_and_is_asked_again_soon(
    desk: LearningDesk,
) -> None:
    desk.label_studio.away = True

    assert look(desk) is None
    assert len(desk.ledger.counted(KEY)) == 3
    assert not desk.reconciler.is_due(KEY)
    desk.clock.forward(30)
    assert desk.reconciler.is_due(KEY)


def test_another_project_of_the_same_number_is_not_taken_for_ours(desk: LearningDesk) -> None:
    desk.label_studio.created_at += 1
    desk.label_studio.rows.clear()

    assert look(desk) is None
    assert len(desk.ledger.counted(KEY)) == 3


def test_an_annotation_that_comes_while_we_read_stays(desk: LearningDesk) -> None:
    label_studio = desk.label_studio
    read = label_studio.annotations

    def annotations(task_id: int) -> list[object]:
        found = read(task_id)
        if task_id == 1:  # its event is quicker than our reading of task 3
            desk.clock.forward(1)
            desk.annotate(1, "second", annotation_id=201)
            desk.event_ledger.work()
        return list(found)

    label_studio.annotations = annotations  # type: ignore[method-assign, assignment]
    look(desk)

    assert is_equal(desk)
