"""Events reach the ledger whatever their order, and none of them holds up the others."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_backend.domain import ProjectKey
from ml_backend.learning import Trigger
from ml_backend.store.events import EventState, split_ids
from tests.unit.service.learning_desk import (
    CREATED,
    KEY,
    ORIGIN,
    LearningDesk,
    label_config,
    open_desk,
)

PAYLOADS = Path(__file__).resolve().parents[2] / "http" / "payloads"
RECORDED = sorted(PAYLOADS.glob("webhook_*.json"))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[LearningDesk]:
    desk = open_desk(tmp_path)
    desk.introduce()
    yield desk
    desk.database.close()


def test_annotations_come_change_and_leave(desk: LearningDesk) -> None:
    desk.annotate(5)
    desk.annotate(6)
    desk.clock.forward(1)
    desk.annotate(5, "changed")
    desk.clock.forward(1)
    job = desk.send("ANNOTATIONS_DELETED", annotations=[{"id": 106}])

    worked = desk.event_ledger.work()

    assert worked.events == 4
    assert worked.projects == {KEY}
    (left,) = desk.ledger.counted(KEY)
    assert (left.task_id, left.result[0]["value"]) == (5, {"mark": "changed"})
    assert desk.event(job).state is EventState.DONE
    assert desk.event(job).message == "1 of 1 annotations left."


def test_a_skipped_task_does_not_count(desk: LearningDesk) -> None:
    desk.tell(desk.label_studio.save(1, 5, cancelled=True))

    desk.event_ledger.work()

    assert desk.ledger.counted(KEY) == []


def test_a_deleted_task_takes_its_annotations_along(desk: LearningDesk) -> None:
    desk.annotate(5)
    desk.clock.forward(1)
    desk.send("TASKS_DELETED", tasks=[{"id": 5}])

    desk.event_ledger.work()

    assert desk.ledger.counted(KEY) == []


@pytest.mark.parametrize("file", RECORDED, ids=lambda file: file.stem)
def test_every_recorded_event_is_worked_on(desk: LearningDesk, file: Path) -> None:
    body = orjson.loads(file.read_bytes())["request"]["body"]
    desk.introduce(key=ProjectKey(origin=ORIGIN, project_id=2, created_at=1_795_215_867))
    job = desk.events.record(action=body["action"], payload=orjson.dumps(body), origin=ORIGIN)

    worked = desk.event_ledger.work()

    assert desk.event(job).state is EventState.DONE
    assert len(worked.projects) == 1
    assert {str(key) for key in worked.projects} <= {str(p.key) for p in desk.projects.all()}


def test_an_event_that_nobody_can_read_fails_alone(desk: LearningDesk) -> None:
    odd = desk.events.record(action="ANNOTATION_CREATED", payload=b'{"action": 3}')
    homeless = desk.send("ANNOTATION_CREATED", project={})
    partly = desk.send("ANNOTATION_CREATED", annotation=[{"id": 1, "task": 2}, {"id": None}])

    desk.event_ledger.work()

    assert desk.event(odd).state is EventState.FAILED
    assert "action" in (desk.event(odd).message or "")
    assert "names no project" in (desk.event(homeless).message or "")
    assert 'no "id"' in (desk.event(partly).message or "")
    assert [one.annotation_id for one in desk.ledger.counted(KEY)] == [1]


def test_imported_tasks_count_once_somebody_annotates_them(desk: LearningDesk) -> None:
    job = desk.send("TASKS_CREATED", tasks=[{"id": 5, "data": {"image": "/5.png"}}])
    desk.event_ledger.work()
    assert desk.ledger.tasks(KEY) == []
    assert "1 tasks count once" in (desk.event(job).message or "")

    desk.annotate(5)
    desk.event_ledger.work()
    assert [task.task_id for task in desk.ledger.tasks(KEY)] == [5]


def test_events_find_their_project_when_it_goes_by_another_name(desk: LearningDesk) -> None:
    other = ProjectKey(origin="http://other.example", project_id=1, created_at=1)
    desk.introduce(key=other)  # another Label Studio's project of the same number
    desk.send("ANNOTATION_CREATED", annotation={"id": 1, "task": 2}, origin="http://inside:8080")
    desk.send("ANNOTATION_CREATED", annotation={"id": 2, "task": 2}, origin=None)

    worked = desk.event_ledger.work()

    assert worked.projects == {KEY}


def test_two_projects_made_in_the_same_second_are_told_apart_by_their_origin(
    desk: LearningDesk,
) -> None:
    twin = ProjectKey(origin="http://twin.example", project_id=1, created_at=KEY.created_at)
    desk.introduce(key=twin)
    desk.send("ANNOTATION_CREATED", annotation={"id": 1, "task": 2}, origin=ORIGIN)
    desk.send("ANNOTATION_CREATED", annotation={"id": 2, "task": 2}, origin="http://twin.example")

    desk.event_ledger.work()

    assert [one.annotation_id for one in desk.ledger.counted(KEY)] == [1]
    assert [one.annotation_id for one in desk.ledger.counted(twin)] == [2]


def test_annotations_of_a_project_nobody_introduced_are_kept_too(tmp_path: Path) -> None:
    desk = open_desk(tmp_path)
    desk.send("ANNOTATION_CREATED", annotation={"id": 1, "task": 2})

    desk.event_ledger.work()

    assert [one.annotation_id for one in desk.ledger.counted(KEY)] == [1]


def test_start_training_queues_a_session_for_each_network(desk: LearningDesk) -> None:
    desk.introduce(
        label_config(
            more='<PolygonLabels name="more" toName="image" model_name="cpsam">'
            '<Label value="Cell"/></PolygonLabels>'
        )
    )
    job = desk.send("START_TRAINING")

    desk.event_ledger.work()

    sessions = desk.all_sessions()
    assert {session.controls for session in sessions} == {("cells",), ("more",)}
    assert {session.trigger for session in sessions} == {Trigger.START_TRAINING}
    assert set(split_ids(desk.event(job).session)) == {session.id for session in sessions}


def test_start_training_on_every_nth_save_is_a_hint(desk: LearningDesk) -> None:
    project = {"id": 1, "min_annotations_to_start_training": 2}
    job = desk.send("START_TRAINING", project=project)

    desk.event_ledger.work()

    assert desk.all_sessions() == []
    assert "training policy decides" in (desk.event(job).message or "")


def test_start_training_says_why_it_cannot(desk: LearningDesk) -> None:
    unknown = desk.send("START_TRAINING", project={"id": 9})
    desk.introduce('<View><Image name="i" value="$i"/><KeyPoint name="k" toName="i"/></View>')
    points = desk.send("START_TRAINING")

    desk.event_ledger.work()

    assert desk.event(unknown).state is EventState.FAILED
    assert "connect" in (desk.event(unknown).message or "")
    assert desk.event(points).state is EventState.FAILED
    assert "outlines objects" in (desk.event(points).message or "")


Fact = tuple[str, int, int]  # kind, annotation, moment

FACTS = st.tuples(
    st.sampled_from(["saved", "skipped", "deleted", "task deleted"]),
    st.integers(1, 4),
    st.integers(0, 5),
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_order_and_repetition_of_events_ends_in_the_same_ledger(
    desk: LearningDesk, data: st.DataObject
) -> None:
    facts = data.draw(st.lists(FACTS, min_size=1, max_size=7), label="facts")
    again = data.draw(st.lists(st.sampled_from(facts), max_size=4), label="sent again")
    shuffled = data.draw(st.permutations([*facts, *again]), label="as they come")

    assert _ledger_after(desk, shuffled) == _ledger_after(desk, facts)


_projects = itertools.count(1000)


def _ledger_after(desk: LearningDesk, facts: Sequence[Fact]) -> tuple[object, ...]:
    """Return what a project's ledger holds after these events."""
    key = ProjectKey(origin=ORIGIN, project_id=next(_projects), created_at=KEY.created_at)
    desk.introduce(key=key)
    project = {"id": key.project_id, "created_at": CREATED}
    for number, (kind, annotation, moment) in enumerate(facts):
        task = annotation % 2 + 1  # an annotation stays in its task
        if kind == "deleted":
            fields: dict[str, object] = {"annotations": [{"id": annotation}]}
            action = "ANNOTATIONS_DELETED"
        elif kind == "task deleted":
            action, fields = "TASKS_DELETED", {"tasks": [{"id": task}]}
        else:
            action = "ANNOTATION_UPDATED"
            fields = {
                "annotation": {
                    "id": annotation,
                    "task": task,
                    "updated_at": f"2026-11-21T10:00:0{moment}Z",
                    "was_cancelled": kind == "skipped",
                    "result": [{"id": "r", "value": {"mark": f"{kind} {moment}"}}],
                },
                "task": {"id": task, "data": {"image": f"/{task}.png"}},
            }
        desk.send(action, project=project, number=number, **fields)
    while desk.event_ledger.work().events:
        pass
    counted = [(one.annotation_id, one.updated_at, one.result) for one in desk.ledger.counted(key)]
    return counted, desk.ledger.task_hashes(key)


@pytest.mark.parametrize(
    "project",
    [
        {"id": 10**18, "created_at": CREATED},
        {"id": 1, "created_at": "1969-12-31T23:59:59Z"},
        {"id": 7, "created_at": "0001-01-01T00:00:00Z"},
    ],
)
def test_a_project_that_cannot_be_is_refused_with_a_sentence(
    desk: LearningDesk, project: dict[str, object]
) -> None:
    annotation = {"id": 1, "task": 1, "updated_at": CREATED, "result": []}
    job = desk.send("ANNOTATION_CREATED", project=project, annotation=annotation)
    desk.annotate(5)

    desk.event_ledger.work()

    assert desk.event(job).state is EventState.FAILED
    assert "which cannot be" in (desk.event(job).message or "")
    assert desk.ledger.projects() == [KEY]
