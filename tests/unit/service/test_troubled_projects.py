"""What is wrong with one project holds up no other, and what dies half way is begun anew."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep

import pytest
import sqlalchemy as sa

from ml_backend.domain import DefaultModels, ProjectKey
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.learning import (
    Annotation,
    LabelledTask,
    LearningOptions,
    Session,
    SessionState,
    TrainingParameters,
    Trigger,
)
from ml_backend.service.learning_loop import PATIENCE_S, LearningLoop
from ml_backend.service.planning import Planner
from ml_backend.store.schema import SessionRow
from tests.unit.service.learning_desk import KEY, LearningDesk, label_config, open_desk

OTHER = replace(KEY, project_id=2, created_at=KEY.created_at + 1)  # not in Label Studio
BROKEN = label_config()[:-3]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[LearningDesk]:
    desk = open_desk(tmp_path)
    desk.introduce()
    desk.introduce(key=OTHER)
    yield desk
    desk.database.close()


def trained(desk: LearningDesk) -> Session:
    """Train a project once, and ask for it again with nothing changed."""
    desk.annotate(1)
    desk.event_ledger.work()
    request(desk)
    desk.start_sessions()
    desk.run_next()
    return request(desk)


def request(desk: LearningDesk, project: ProjectKey = KEY) -> Session:
    """Queue a session."""
    return desk.sessions.request(
        project, controls=["cells"], trigger=Trigger.PERSON, parameters=TrainingParameters()
    )


def annotate_other(desk: LearningDesk, tasks: int) -> None:
    """Annotate tasks of the other project."""
    for task_id in range(1, tasks + 1):
        annotation = Annotation(
            task_id=task_id, annotation_id=task_id, updated_at=desk.clock(), result=[{"id": "r"}]
        )
        task = LabelledTask(task_id=task_id, data={})
        desk.ledger.record(OTHER, annotation, task)


def spoil(desk: LearningDesk, session_id: str, **columns: bytes) -> None:
    """Make a session's row unreadable."""
    with desk.database.write() as transaction:
        transaction.execute(
            sa.update(SessionRow).where(SessionRow.id == session_id).values(**columns)
        )


def state_of(desk: LearningDesk, session: Session) -> SessionState:
    """Return the state of a session now."""
    found = desk.sessions.get(session.id)
    assert found is not None
    return found.state


def test_a_label_config_broken_while_a_session_waits_stops_nobody(desk: LearningDesk) -> None:
    waiting = trained(desk)
    annotate_other(desk, 1)
    others = request(desk, OTHER)
    desk.introduce(BROKEN)

    desk.start_sessions()

    assert {waiting.id, others.id} <= set(desk.woken)  # its run says what is wrong


def test_a_session_that_cannot_be_started_is_passed_over_for_a_while(desk: LearningDesk) -> None:
    waiting = trained(desk)
    spoil(desk, desk.woken[-1], manifest=b"no zlib")
    annotate_other(desk, 1)
    others = request(desk, OTHER)

    desk.start_sessions()

    assert desk.woken[-1] == others.id
    assert waiting.id not in desk.woken
    assert state_of(desk, waiting) is SessionState.QUEUED


def test_a_project_that_cannot_be_considered_is_passed_over(desk: LearningDesk) -> None:
    unchanged = trained(desk)
    desk.start_sessions()
    spoil(desk, unchanged.id, report=b"no zlib")
    annotate_other(desk, 10)
    desk.clock.forward(3600)

    desk.loop.listen()

    assert [one.project for one in desk.sessions.claimable()] == [OTHER]


def test_who_dies_while_ending_an_unchanged_session_leaves_it_queued(desk: LearningDesk) -> None:
    class DyingPlanner(Planner):
        def manifest_of_unchanged(self, session: Session) -> dict[str, object]:
            raise SystemExit(session.id)

    waiting = trained(desk)
    desk.reconciler.try_to_reconcile(KEY)
    woken = list(desk.woken)
    loop = LearningLoop(
        events=desk.event_ledger,
        planner=DyingPlanner(
            models=DefaultModels(),
            defaults=LearningOptions(),
            parse=parse_label_config,
            projects=desk.projects,
            ledger=desk.ledger,
            sessions=desk.sessions,
            versions=desk.versions,
            components=desk.components,
            clock=desk.clock,
        ),
        reconciler=desk.reconciler,
        ledger=desk.ledger,
        projects=desk.projects,
        sessions=desk.sessions,
        wake=desk.woken.append,
        clock=desk.clock,
    )

    with pytest.raises(SystemExit):
        loop.start_sessions()
    left = state_of(desk, waiting)
    desk.clock.forward(3600)
    desk.start_sessions()

    assert left is SessionState.QUEUED
    assert state_of(desk, waiting) is SessionState.COMPLETED
    assert desk.woken == woken


class StuckReading:
    """Keeps every reading of a task's annotations from ending."""

    def __init__(self, desk: LearningDesk) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        read = desk.label_studio.annotations

        def annotations(task_id: int) -> list[Annotation]:
            self.begun.set()
            self.go_on.wait(30)
            return read(task_id)

        desk.label_studio.annotations = annotations  # type: ignore[method-assign]


def test_a_whole_reading_of_one_project_does_not_hold_up_anothers_session(
    desk: LearningDesk,
) -> None:
    desk.annotate(1)
    annotate_other(desk, 1)
    stuck = StuckReading(desk)
    with desk.loop:
        assert stuck.begun.wait(20)
        session = request(desk, OTHER)
        deadline = monotonic() + 20
        while not desk.woken and monotonic() < deadline:
            sleep(0.02)
        woken = list(desk.woken)
        stuck.go_on.set()

    assert woken == [session.id]


def test_a_session_does_not_wait_for_a_look_for_ever(desk: LearningDesk) -> None:
    desk.annotate(1)
    desk.event_ledger.work()
    stuck = StuckReading(desk)
    look = threading.Thread(target=desk.loop.look_around, daemon=True)
    look.start()
    assert stuck.begun.wait(20)
    desk.clock.forward(1)
    session = request(desk)
    desk.start_sessions()  # the look that is being taken may have missed what it is to learn
    at_first = list(desk.woken)

    desk.clock.forward(PATIENCE_S)
    desk.start_sessions()

    stuck.go_on.set()
    look.join(20)
    assert at_first == []
    assert desk.woken == [session.id]


def test_a_look_of_the_policy_at_what_it_knows_reads_neither_manifest_nor_hashes(
    desk: LearningDesk,
) -> None:
    trained(desk)
    desk.start_sessions()  # ends it: nothing has changed
    desk.clock.forward(3600)
    desk.planner.consider(KEY)
    statements: list[str] = []
    listener = ("before_cursor_execute", lambda *given: statements.append(given[2]))
    sa.event.listen(desk.database.engine, *listener)

    decision = desk.planner.consider(KEY)

    sa.event.remove(desk.database.engine, *listener)
    assert decision.reason == "No annotation has changed since the last session."
    assert statements
    assert not [one for one in statements if "manifest" in one or "content_hash" in one]


def test_what_changes_after_the_policy_has_looked_counts(desk: LearningDesk) -> None:
    desk.introduce(label_config('model_training_tasks="1" model_training_quiet="0"'))
    for task_id in (1, 2, 3):
        desk.annotate(task_id)
    desk.event_ledger.work()
    assert desk.planner.consider(KEY).train
    desk.start_sessions()
    desk.run_next()
    desk.clock.forward(3600)
    looks = []
    changes: list[Callable[[], object]] = [list, lambda: desk.annotate(2, "else"), list]
    for change in changes:
        change()
        desk.event_ledger.work()
        looks.append(desk.planner.consider(KEY).reason)

    assert looks == [
        "No annotation has changed since the last session.",
        "1 tasks are new or changed since the last session.",
        "A session waits or runs.",
    ]
