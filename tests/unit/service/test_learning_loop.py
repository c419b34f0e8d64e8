"""From annotations to sessions: when, how many, and when not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest

from ml_backend.datasets import DATASET_CONTROLS, DatasetSource
from ml_backend.domain import Component
from ml_backend.learning import SessionState, TrainingParameters, Trigger
from ml_backend.service.learning_loop import LearningLoop
from ml_backend.store.datasets import Datasets
from tests.unit.service.learning_desk import BASE, KEY, LearningDesk, label_config, open_desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[LearningDesk]:
    desk = open_desk(tmp_path)
    desk.introduce()
    yield desk
    desk.database.close()


def trained(
    desk: LearningDesk,
    *,
    version: str | None = None,
    not_fetched: frozenset[int] = frozenset(),
) -> None:
    """Annotate ten tasks and let the policy train on them."""
    for task_id in range(1, 11):
        desk.annotate(task_id)
    desk.listen()
    desk.clock.forward(60)
    desk.listen()
    desk.start_sessions()
    desk.run_next(version=version, not_fetched=not_fetched)


def test_fifty_annotations_in_ten_seconds_make_one_session(desk: LearningDesk) -> None:
    for number in range(50):
        desk.annotate(number + 1)
        desk.clock.forward(0.2)
        if number % 5 == 4:
            desk.loop.listen()
    for _ in range(8):  # two minutes
        desk.listen()
        desk.start_sessions()

    (session,) = desk.all_sessions()
    assert session.trigger is Trigger.POLICY
    assert set(desk.woken) == {session.id}


def test_the_policy_waits_for_ten_tasks_and_quiet(desk: LearningDesk) -> None:
    for task_id in range(1, 10):
        desk.annotate(task_id)
    desk.listen()
    desk.clock.forward(600)
    desk.listen()
    assert desk.all_sessions() == []

    desk.annotate(10)
    desk.listen()
    assert desk.all_sessions() == []

    desk.clock.forward(60)
    desk.listen()
    assert len(desk.all_sessions()) == 1


def test_after_a_session_only_what_is_new_counts(desk: LearningDesk) -> None:
    trained(desk)
    desk.clock.forward(3600)
    desk.listen()
    assert len(desk.all_sessions()) == 1

    for task_id in range(1, 10):
        desk.annotate(task_id, "changed")
    desk.listen()
    desk.clock.forward(3600)
    desk.listen()
    assert len(desk.all_sessions()) == 1

    desk.annotate(11)
    desk.listen()
    desk.clock.forward(3600)
    desk.listen()
    assert len(desk.all_sessions()) == 2


def test_a_manual_project_is_never_trained_by_itself(desk: LearningDesk) -> None:
    desk.introduce(label_config('model_training="manual"'))
    for task_id in range(1, 21):
        desk.annotate(task_id)
    desk.listen()
    desk.clock.forward(3600)
    desk.listen()

    assert desk.all_sessions() == []


def test_the_label_config_sets_the_policy_and_the_parameters(desk: LearningDesk) -> None:
    desk.introduce(
        label_config('model_training_tasks="3" model_training_quiet="0" model_epochs="5"')
    )
    for task_id in (1, 2, 3):
        desk.annotate(task_id)
    desk.listen()

    (session,) = desk.all_sessions()
    assert session.parameters.n_epochs == 5


def test_start_training_does_not_wait_for_the_policy(desk: LearningDesk) -> None:
    desk.annotate(1)
    desk.send("START_TRAINING")
    desk.loop.listen()
    desk.start_sessions()

    (session,) = desk.all_sessions()
    assert session.trigger is Trigger.START_TRAINING
    assert desk.woken == [session.id]


def test_requests_while_one_runs_queue_exactly_one_more(desk: LearningDesk) -> None:
    desk.annotate(1)
    desk.send("START_TRAINING")
    desk.loop.listen()
    desk.start_sessions()
    (first,) = desk.all_sessions()
    assert desk.sessions.claim(first.id, owner="trainer", lease_s=600)

    for _ in range(3):
        desk.send("START_TRAINING")
        desk.loop.listen()
    desk.start_sessions()

    states = [session.state for session in desk.all_sessions()]
    assert sorted(states) == [SessionState.QUEUED, SessionState.RUNNING]
    assert desk.woken == [first.id]  # the other one waits for its turn


def test_a_session_in_which_nothing_changed_says_so_and_does_not_run(desk: LearningDesk) -> None:
    trained(desk, version="nuclei-1-p1-v1")
    woken = list(desk.woken)
    for _ in range(2):  # and the one after that refers to the same session
        desk.clock.forward(1)
        desk.send("START_TRAINING")
        desk.loop.listen()
        desk.start_sessions()

    first, second, third = desk.all_sessions()
    for session in (second, third):
        assert session.state is SessionState.COMPLETED
        assert session.message is not None
        assert session.message.startswith(f"No annotation has changed since session {first.id}")
        assert "nuclei-1-p1-v1" in session.message
        assert session.version is None
    assert desk.woken == woken


def test_images_that_are_gone_start_no_training_by_themselves_but_a_person_does(
    desk: LearningDesk,
) -> None:
    trained(desk, not_fetched=frozenset(range(1, 11)))
    for _ in range(60):  # a quarter of an hour: far beyond the pause
        desk.listen()
        desk.start_sessions()
    assert len(desk.all_sessions()) == 1

    desk.send("START_TRAINING")
    desk.loop.listen()
    desk.start_sessions()

    assert desk.all_sessions()[-1].state is SessionState.QUEUED
    assert desk.woken[-1] == desk.all_sessions()[-1].id


def test_a_deleted_annotation_is_a_change(desk: LearningDesk) -> None:
    trained(desk)
    desk.label_studio.delete(101)
    desk.send("ANNOTATIONS_DELETED", annotations=[{"id": 101}])
    desk.send("START_TRAINING")
    desk.loop.listen()
    desk.start_sessions()

    assert desk.all_sessions()[-1].state is SessionState.QUEUED
    assert desk.woken[-1] == desk.all_sessions()[-1].id


@pytest.mark.parametrize("root", ['model_epochs="7"', 'model_clahe="true"', 'model_group="well"'])
def test_another_option_is_a_reason_to_train_again(desk: LearningDesk, root: str) -> None:
    trained(desk)
    desk.introduce(label_config(root))
    desk.send("START_TRAINING")
    desk.loop.listen()
    desk.start_sessions()

    assert desk.all_sessions()[-1].state is SessionState.QUEUED


def test_another_base_network_is_a_reason_to_train_again(desk: LearningDesk) -> None:
    trained(desk, version="nuclei-1-p1-v1")
    other = {name: getattr(BASE, name) for name in BASE.__dataclass_fields__}
    desk.components.record(
        "auto", Component(**{**other, "name": "cpsam", "sha256": "1" * 64}), device="cpu"
    )
    desk.send("START_TRAINING")
    desk.loop.listen()
    desk.start_sessions()

    assert desk.all_sessions()[-1].state is SessionState.QUEUED


@pytest.mark.parametrize("state", [SessionState.FAILED, SessionState.STOPPED])
def test_people_may_try_again_what_failed_but_the_policy_does_not(
    desk: LearningDesk, state: SessionState
) -> None:
    for task_id in range(1, 11):
        desk.annotate(task_id)
    desk.listen()
    desk.clock.forward(60)
    desk.listen()
    desk.start_sessions()
    desk.run_next(state)
    desk.clock.forward(3600)
    desk.listen()
    assert len(desk.all_sessions()) == 1

    desk.send("START_TRAINING")
    desk.loop.listen()
    desk.start_sessions()

    assert desk.woken[-1] == desk.all_sessions()[-1].id
    assert len(desk.all_sessions()) == 2


def test_nothing_annotated_is_said_and_not_trained(desk: LearningDesk) -> None:
    job = desk.send("START_TRAINING")
    desk.loop.listen()
    desk.start_sessions()

    (session,) = desk.all_sessions()
    assert desk.event(job).session == session.id
    assert session.state is SessionState.COMPLETED
    assert "Nobody has annotated" in (session.message or "")
    assert desk.woken == []


def test_what_events_did_not_tell_is_read_before_a_session_starts(desk: LearningDesk) -> None:
    desk.label_studio.save(1, 5)  # its event is lost
    desk.send("START_TRAINING")
    desk.loop.listen()
    desk.start_sessions()

    assert [one.task_id for one in desk.ledger.counted(KEY)] == [5]
    assert len(desk.woken) == 1


def test_without_credentials_it_trains_on_what_events_told(desk: LearningDesk) -> None:
    desk.has_credentials = False
    desk.annotate(1)
    desk.send("START_TRAINING")
    desk.loop.listen()
    desk.start_sessions()

    assert len(desk.woken) == 1


def test_a_lost_wake_up_is_repeated_but_not_all_the_time(desk: LearningDesk) -> None:
    desk.annotate(1)
    desk.send("START_TRAINING")
    desk.loop.listen()
    for _ in range(10):
        desk.start_sessions()
        desk.clock.forward(1)
    assert len(desk.woken) == 1

    desk.clock.forward(60)
    desk.start_sessions()
    assert len(desk.woken) == 2


def test_a_session_that_lost_its_trainer_is_taken_up_again(desk: LearningDesk) -> None:
    desk.annotate(1)
    desk.send("START_TRAINING")
    desk.loop.listen()
    desk.start_sessions()
    (session,) = desk.all_sessions()
    assert desk.sessions.claim(session.id, owner="killed", lease_s=30)
    desk.start_sessions()
    assert desk.woken == [session.id]

    desk.clock.forward(31)
    desk.start_sessions()

    assert desk.woken == [session.id, session.id]


def test_two_trainers_make_one_session_of_the_same_annotations(
    desk: LearningDesk,
) -> None:
    second = LearningLoop(
        events=desk.event_ledger,
        planner=desk.planner,
        reconciler=desk.reconciler,
        ledger=desk.ledger,
        projects=desk.projects,
        sessions=desk.sessions,
        wake=desk.woken.append,
        clock=desk.clock,
    )
    for task_id in range(1, 11):
        desk.annotate(task_id)
    desk.loop.listen()
    desk.clock.forward(60)
    for loop in (desk.loop, second, desk.loop, second):
        desk.clock.forward(15)
        loop.listen()
        loop.start_sessions()
        loop.look_for_sessions()

    assert len(desk.all_sessions()) == 1


def test_the_threads_do_the_same_by_themselves(desk: LearningDesk) -> None:
    desk.annotate(1)
    job = desk.send("START_TRAINING")
    with desk.loop:
        deadline = monotonic() + 20
        while not desk.woken and monotonic() < deadline:
            sleep(0.02)

    assert desk.woken == [desk.event(job).session]


CHOICES = (
    '<Choices name="kind" toName="image"><Choice value="A"/><Choice value="B"/></Choices>'
    '<PolygonLabels name="sorts" toName="image" model_name="other">'
    '<Label value="Round"/><Label value="Long"/></PolygonLabels>'
)


def test_start_training_without_annotations_makes_clusters_and_nothing_else(
    desk: LearningDesk,
) -> None:
    desk.introduce(label_config(more=CHOICES))
    desk.send("START_TRAINING")

    desk.listen()
    desk.start_sessions()

    states = {session.controls: session.state for session in desk.all_sessions()}
    assert states == {
        ("cells",): SessionState.COMPLETED,
        ("sorts",): SessionState.COMPLETED,
        ("sorts/labels",): SessionState.COMPLETED,
        ("kind",): SessionState.QUEUED,
    }
    assert len(desk.woken) == 1


def test_masks_and_choices_of_a_project_are_trained_in_sessions_of_their_own(
    desk: LearningDesk,
) -> None:
    desk.introduce(label_config(more=CHOICES))
    for task_id in range(1, 11):
        desk.annotate(task_id)
    desk.listen()
    desk.clock.forward(120)

    desk.listen()

    controls = sorted(session.controls for session in desk.all_sessions())
    assert controls == [("cells",), ("kind",), ("sorts",), ("sorts/labels",)]


def test_a_session_about_a_dataset_waits_for_nothing(desk: LearningDesk) -> None:
    dataset = Datasets(desk.database).register(DatasetSource(root="/data/nuclei"))
    session = desk.sessions.request(
        dataset.key,
        controls=DATASET_CONTROLS,
        trigger=Trigger.PERSON,
        parameters=TrainingParameters(),
        dataset=dataset.name,
    )

    desk.loop.start_sessions()

    assert desk.woken == [session.id]
    assert desk.label_studio.asked == []


def test_a_restart_runs_although_nobody_has_annotated_since(desk: LearningDesk) -> None:
    trained(desk)
    (first,) = desk.all_sessions()
    desk.woken.clear()
    again = desk.sessions.request(
        KEY,
        controls=first.controls,
        trigger=Trigger.PERSON,
        parameters=first.parameters,
        restarted_from=first.id,
    )

    desk.start_sessions()

    assert desk.woken == [again.id]
    assert {session.state for session in desk.all_sessions()} == {
        SessionState.QUEUED,
        SessionState.COMPLETED,
    }
