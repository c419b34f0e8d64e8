"""What people are told of sessions by those who ask often, or at the same time as another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_backend.errors import Conflict
from ml_backend.learning import Session, Trigger
from ml_backend.learning import TrainingParameters as Parameters
from ml_backend.service.sessions import TrainingDesk
from ml_backend.store.events import EventState
from ml_backend.store.sessions import Sessions
from tests.unit.service.learning_desk import KEY, LearningDesk, open_desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[LearningDesk]:
    desk = open_desk(tmp_path)
    desk.introduce()
    yield desk
    desk.database.close()


def request(desk: LearningDesk) -> Session:
    """Queue a session."""
    return desk.sessions.request(
        KEY, controls=["cells"], trigger=Trigger.PERSON, parameters=Parameters()
    )


def test_who_asks_how_far_a_job_is_is_not_read_its_manifest(desk: LearningDesk) -> None:
    session = request(desk)
    desk.sessions.complete_unrun(session.id, owner="loop", message="No.", manifest={"a": 1})
    job = desk.send("START_TRAINING")
    desk.events.finish(job, EventState.DONE, session=session.id)
    training = TrainingDesk(desk.projects, desk.sessions, desk.planner)

    (told,) = training.of_event(desk.event(job))

    assert (told.id, told.message, told.manifest) == (session.id, "No.", {})
    for name in (session.id, session.id[:8]):
        assert training.get(name).manifest == {}
        assert training.get(name, with_manifest=True).manifest == {"a": 1}


def test_a_session_that_was_queued_while_another_is_resumed_is_a_conflict(
    desk: LearningDesk,
) -> None:
    class LateSessions(Sessions):
        def find(self, *args: Any, **named: Any) -> list[Session]:
            """Return what was there before the other one was queued."""
            return []

    stopped = request(desk)
    desk.sessions.request_stop(stopped.id)
    other = request(desk)
    late = LateSessions(desk.database, clock=desk.clock)

    with pytest.raises(Conflict, match=other.id):
        TrainingDesk(desk.projects, late, desk.planner).resume(stopped.id)
