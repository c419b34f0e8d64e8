"""What people are told of sessions, and which of them they may change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from ml_backend.callers import Caller, Role
from ml_backend.errors import BadRequest, Conflict, Forbidden, NotFound
from ml_backend.learning import Session, Trigger
from ml_backend.learning import TrainingParameters as Parameters
from ml_backend.service.sessions import TrainingDesk
from ml_backend.store.events import EventState
from ml_backend.store.schema import SessionRow
from tests.unit.service.learning_desk import KEY, LearningDesk, open_desk

ADMIN = Caller(name=None, role=Role.ADMIN)
Change = Callable[[str | None, Caller], None]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[LearningDesk]:
    desk = open_desk(tmp_path)
    desk.introduce()
    yield desk
    desk.database.close()


def request(desk: LearningDesk, control: str = "cells") -> Session:
    """Queue a session."""
    return desk.sessions.request(
        KEY, controls=[control], trigger=Trigger.PERSON, parameters=Parameters()
    )


def request_of(desk: LearningDesk, owner: str | None) -> Session:
    """Queue a session that a caller asked for."""
    return desk.sessions.request(
        KEY, controls=["cells"], trigger=Trigger.PERSON, parameters=Parameters(), owner=owner
    )


def test_who_asks_how_far_a_job_is_is_not_read_its_manifest(desk: LearningDesk) -> None:
    session = request(desk)
    desk.sessions.complete_unrun(session.id, owner="loop", message="No.", manifest={"a": 1})
    job = desk.send("START_TRAINING")
    desk.events.finish(job, EventState.DONE, session=session.id)
    training = TrainingDesk(desk.projects, desk.sessions)

    (told,) = training.of_event(desk.event(job))

    assert (told.id, told.message, told.manifest) == (session.id, "No.", {})
    for name in (session.id, session.id[:8]):
        assert training.get(name).manifest == {}
        assert training.get(name, with_manifest=True).manifest == {"a": 1}


def test_a_session_is_found_by_the_beginning_of_its_id(desk: LearningDesk) -> None:
    session = request(desk)
    training = TrainingDesk(desk.projects, desk.sessions)

    assert training.get(session.id[:4]) == session
    for name in (session.id[:3], session.id + "0", "", "%", "_" * 32, "é" * 4, "\0" * 8):
        with pytest.raises(NotFound):
            training.get(name)


def test_a_beginning_that_two_sessions_have_needs_more_of_it(desk: LearningDesk) -> None:
    made = [request(desk, f"control {number}").id for number in range(2)]
    with desk.database.write() as transaction:
        for number, session_id in enumerate(made):
            renamed = sa.update(SessionRow).where(SessionRow.id == session_id)
            transaction.execute(renamed.values(id=f"abcd{number}"))
    training = TrainingDesk(desk.projects, desk.sessions)

    with pytest.raises(BadRequest, match="write more"):
        training.get("abcd")
    assert training.get("abcd1").id == "abcd1"


def test_a_session_does_not_jump_the_queue_of_its_controls(desk: LearningDesk) -> None:
    stopped = request(desk)
    desk.sessions.request_stop(stopped.id)
    other = request(desk)

    with pytest.raises(Conflict, match=other.id):
        TrainingDesk(desk.projects, desk.sessions).resume(stopped.id, by=ADMIN)


class TestOwners:
    """Callers change their own sessions, admins all."""

    @pytest.fixture(params=["stop", "resume", "delete"])
    def change(self, request: pytest.FixtureRequest, desk: LearningDesk) -> Change:
        """Return what changes a session that it can be done with."""
        training = TrainingDesk(desk.projects, desk.sessions)

        def change(owner: str | None, by: Caller) -> None:
            session = request_of(desk, owner)
            if request.param != "stop":
                desk.sessions.request_stop(session.id)
            getattr(training, request.param)(session.id, by=by)

        return change

    @pytest.mark.parametrize(
        ("owner", "by"),
        [
            ("ann", Caller(name="ann", role=Role.TRAIN)),
            ("ann", Caller(name="ann", role=Role.ADMIN)),
            ("ann", Caller(name="root", role=Role.ADMIN)),
            ("ann", ADMIN),
            (None, ADMIN),
            (None, Caller(name="root", role=Role.ADMIN)),
        ],
        ids=str,
    )
    def test_owners_and_admins_may(self, change: Change, owner: str | None, by: Caller) -> None:
        change(owner, by)

    @pytest.mark.parametrize(
        ("owner", "by"),
        [
            ("ann", Caller(name="ben", role=Role.TRAIN)),
            ("ann", Caller(name=None, role=Role.TRAIN)),
            (None, Caller(name="ann", role=Role.TRAIN)),
            (None, Caller(name=None, role=Role.TRAIN)),
        ],
        ids=str,
    )
    def test_others_may_not(self, change: Change, owner: str | None, by: Caller) -> None:
        with pytest.raises(Forbidden, match="only its owner or somebody with the role admin"):
            change(owner, by)


class TestDeleting:
    def test_what_runs_or_waits_is_not_deleted(self, desk: LearningDesk) -> None:
        training = TrainingDesk(desk.projects, desk.sessions)
        session = request(desk)

        with pytest.raises(Conflict, match="stop it first"):
            training.delete(session.id, by=ADMIN)
        assert desk.sessions.claim(session.id, owner="trainer", lease_s=60) is not None
        with pytest.raises(Conflict, match="stop it first"):
            training.delete(session.id, by=ADMIN)

    def test_the_version_that_it_made_stays(self, desk: LearningDesk) -> None:
        request(desk)
        desk.woken.append(desk.all_sessions()[0].id)
        ended = desk.run_next(version="nuclei-1-p1-v1")

        TrainingDesk(desk.projects, desk.sessions).delete(ended.id[:8], by=ADMIN)

        assert desk.sessions.get(ended.id) is None
        assert desk.sessions.curve(ended.id) == []
        assert desk.versions.get(KEY, "nuclei-1-p1-v1") is not None
