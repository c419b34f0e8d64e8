"""What Label Studio's events say: as recorded, in pieces, and as nobody ever sent them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_backend.errors import BadRequest
from ml_backend.labelstudio.events import (
    AnnotationsDeleted,
    AnnotationsSaved,
    LabelStudioEvent,
    ProjectUpdated,
    TasksDeleted,
    TasksSaved,
    TrainingWanted,
    UnknownEvent,
    read_event,
)

PAYLOADS = Path(__file__).resolve().parents[2] / "http" / "payloads"
RECORDED = sorted(path.stem.removeprefix("webhook_") for path in PAYLOADS.glob("webhook_*.json"))
HEARD_AT = 1_795_300_000.0


def recorded(name: str) -> LabelStudioEvent:
    exchange = orjson.loads((PAYLOADS / f"webhook_{name}.json").read_bytes())
    return read_event(orjson.dumps(exchange["request"]["body"]), heard_at=HEARD_AT)


def said(action: str, **fields: Any) -> LabelStudioEvent:
    body = {"action": action, "project": {"id": 1}, **fields}
    return read_event(orjson.dumps(body), heard_at=HEARD_AT)


@pytest.mark.parametrize("name", RECORDED)
def test_every_recorded_event_is_understood_and_names_its_project(name: str) -> None:
    event = recorded(name)

    assert not isinstance(event, UnknownEvent)
    assert event.problems == ()
    assert event.project is not None
    assert event.project.created_at is not None
    assert 1_795_000_000 < event.project.created_at < 1_796_000_000


def test_a_new_annotation_comes_with_its_task() -> None:
    event = recorded("ANNOTATION_CREATED")

    assert isinstance(event, AnnotationsSaved)
    (annotation,), (task,) = event.annotations, event.tasks
    assert (annotation.annotation_id, annotation.task_id, task.task_id) == (1, 1, 1)
    assert annotation.updated_at == pytest.approx(1_795_215_682.296965)
    assert annotation.completed_by == 1
    assert len(annotation.result) == 1
    assert task.data == {"image": "/data/upload/1/addab693-img0.png"}


def test_annotations_made_from_predictions_come_as_a_list_and_name_them() -> None:
    event = recorded("ANNOTATIONS_CREATED")

    assert isinstance(event, AnnotationsSaved)
    assert [one.parent_prediction for one in event.annotations] == [63, 64]
    assert [one.task_id for one in event.annotations] == [task.task_id for task in event.tasks]


def test_a_skipped_task_is_a_cancelled_annotation() -> None:
    event = recorded("ANNOTATION_CREATED_skipped_task")

    assert isinstance(event, AnnotationsSaved)
    assert [one.cancelled for one in event.annotations] == [True]


def test_deletions_name_numbers_only() -> None:
    annotations, tasks = recorded("ANNOTATIONS_DELETED"), recorded("TASKS_DELETED")

    assert isinstance(annotations, AnnotationsDeleted)
    assert annotations.annotation_ids == (1,)
    assert isinstance(tasks, TasksDeleted)
    assert tasks.task_ids == (6,)


def test_imported_tasks_come_with_their_data() -> None:
    event = recorded("TASKS_CREATED")

    assert isinstance(event, TasksSaved)
    assert [task.task_id for task in event.tasks] == [7]
    assert event.tasks[0].data["image"].startswith("/data/upload/")


def test_start_training_is_an_order_unless_label_studio_sends_it_by_itself() -> None:
    order = recorded("START_TRAINING")
    hint = said("START_TRAINING", project={"id": 1, "min_annotations_to_start_training": 5})

    assert isinstance(order, TrainingWanted)
    assert isinstance(hint, TrainingWanted)
    assert (order.is_hint, hint.is_hint) == (False, True)


def test_saved_settings_and_unknown_events_keep_their_names() -> None:
    assert isinstance(recorded("PROJECT_UPDATED"), ProjectUpdated)
    assert said("LABEL_LINK_CREATED") == UnknownEvent(
        action="LABEL_LINK_CREATED", project=said("X").project
    )


def test_one_unreadable_row_does_not_spoil_the_others() -> None:
    event = said(
        "ANNOTATIONS_CREATED",
        annotation=[{"id": None}, {"id": 2, "task": 5, "result": "x"}, {"id": 3, "task": 5}],
        task=[{"id": 5, "data": {}}, {"id": 6}],
    )

    assert isinstance(event, AnnotationsSaved)
    assert [one.annotation_id for one in event.annotations] == [3]
    assert [task.task_id for task in event.tasks] == [5]
    assert len(event.problems) == 3
    assert any("annotation 2" in problem for problem in event.problems)


def test_expanded_people_and_missing_times_are_read_too() -> None:
    event = said(
        "ANNOTATION_CREATED",
        annotation={"id": 1, "completed_by": {"id": 9}, "result": None},
        task={"id": 4, "data": {}},
    )

    assert isinstance(event, AnnotationsSaved)
    (annotation,) = event.annotations
    assert (annotation.completed_by, annotation.task_id) == (9, 4)
    assert (annotation.updated_at, annotation.result) == (HEARD_AT, [])


def test_half_an_emoji_in_a_text_does_not_spoil_the_event() -> None:
    body = rb'{"action": "TASKS_CREATED", "tasks": [{"id": 1, "data": {"t": "\ud83d"}}]}'

    event = read_event(body, heard_at=HEARD_AT)

    assert isinstance(event, TasksSaved)
    assert event.tasks[0].data == {"t": "\ufffd"}


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"action": 3}', b"\xff", b"[" * 100_000])
def test_what_is_no_event_is_refused_with_a_sentence(body: bytes) -> None:
    with pytest.raises(BadRequest):
        read_event(body, heard_at=HEARD_AT)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "task", "result", "data", "updated_at", "completed_by"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(
    action=st.sampled_from(
        ["ANNOTATION_CREATED", "ANNOTATIONS_DELETED", "TASKS_CREATED", "TASKS_DELETED", "X"]
    ),
    fields=st.dictionaries(
        st.sampled_from(["project", "annotation", "annotations", "task", "tasks"]), JSON
    ),
)
def test_no_odd_row_breaks_the_reader(action: str, fields: dict[str, Any]) -> None:

    body = json.dumps({"action": action, **fields}).encode()
    try:
        event = read_event(body, heard_at=HEARD_AT)
    except BadRequest:
        return  # numbers that no reader takes
    assert event.action == action
