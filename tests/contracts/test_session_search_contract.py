"""What looking for sessions and deleting them promise on every database."""

from __future__ import annotations

from typing import Any

import pytest

from ml_backend.errors import Conflict
from ml_backend.learning import (
    EpochPoint,
    Session,
    SessionState,
    SessionStatus,
    TrainingParameters,
    Trigger,
)
from ml_backend.store.database import Database
from ml_backend.store.session_filter import SessionFilter
from ml_backend.store.session_requests import DELETED_KEPT_S
from ml_backend.store.sessions import Sessions
from tests.contracts.learning_records import PROJECT
from tests.fakes import ManualClock

STATUS = SessionStatus


@pytest.fixture
def clock() -> ManualClock:
    """Return our clock."""
    return ManualClock()


@pytest.fixture
def sessions(database: Database, clock: ManualClock) -> Sessions:
    """Return the empty table."""
    return Sessions(database, clock=clock)


def request(sessions: Sessions, *, dataset: str | None = "nuclei", **more: Any) -> Session:
    """Return a session that was asked for."""
    return sessions.request(
        PROJECT,
        controls=["masks"],
        trigger=Trigger.PERSON,
        parameters=TrainingParameters(),
        dataset=dataset,
        **more,
    )


def found(sessions: Sessions, **wanted: Any) -> set[str]:
    """Return the ids of those that are found."""
    return {session.id for session in sessions.find(also=SessionFilter(**wanted))}


class TestStatuses:
    @pytest.fixture
    def one_of_each(self, sessions: Sessions, clock: ManualClock) -> dict[SessionStatus, str]:
        """Return ids by status."""
        made = {status: request(sessions).id for status in STATUS}
        for status, session_id in made.items():
            if status is not STATUS.QUEUED:
                lease_s = 10 if status is STATUS.UNKNOWN else 600
                lease = sessions.claim(session_id, owner="trainer", lease_s=lease_s)
                assert lease is not None
                if status not in (STATUS.RUNNING, STATUS.UNKNOWN):
                    sessions.finish(lease, SessionState(status.value), message=None)
        clock.forward(60)
        return made

    @pytest.mark.parametrize("status", STATUS)
    def test_each_status_finds_its_own_and_no_other(
        self, sessions: Sessions, one_of_each: dict[SessionStatus, str], status: SessionStatus
    ) -> None:
        assert found(sessions, statuses=[status]) == {one_of_each[status]}

    def test_several_statuses_add_up(
        self, sessions: Sessions, one_of_each: dict[SessionStatus, str]
    ) -> None:
        wanted = [STATUS.RUNNING, STATUS.UNKNOWN, STATUS.FAILED]
        assert found(sessions, statuses=wanted) == {one_of_each[status] for status in wanted}

    def test_a_session_says_the_status_that_it_is_found_by(
        self, sessions: Sessions, clock: ManualClock, one_of_each: dict[SessionStatus, str]
    ) -> None:
        for status, session_id in one_of_each.items():
            session = sessions.get(session_id)
            assert session is not None
            assert session.status_at(clock()) is status

    def test_a_state_and_a_status_must_both_be_its(
        self, sessions: Sessions, one_of_each: dict[SessionStatus, str]
    ) -> None:
        both = sessions.find(
            state=SessionState.RUNNING, also=SessionFilter(statuses=[STATUS.UNKNOWN])
        )
        assert [session.id for session in both] == [one_of_each[STATUS.UNKNOWN]]


class TestNames:
    def test_sessions_are_found_by_dataset_label_and_owner(self, sessions: Sessions) -> None:
        a = request(sessions, dataset="a", label="cells", owner="ann").id
        b = request(sessions, dataset="b", label="cells", owner="ben").id
        c = request(sessions, dataset="a", label="yeast").id
        project = request(sessions, dataset=None).id

        assert found(sessions) == {a, b, c, project}
        assert found(sessions, datasets=["a"]) == {a, c}
        assert found(sessions, datasets=["a", "b"]) == {a, b, c}
        assert found(sessions, labels=["cells"]) == {a, b}
        assert found(sessions, labels=["cells", "yeast"], datasets=["a"]) == {a, c}
        assert found(sessions, owner="ben") == {b}
        assert found(sessions, owner="ben", datasets=["a"]) == set()

    @pytest.mark.parametrize("name", ["", "A", "a\0", "'; --", "a%", "細胞"])
    def test_what_nothing_is_called_finds_nothing(self, sessions: Sessions, name: str) -> None:
        request(sessions, dataset="a", label="a", owner="a")
        for wanted in ({"datasets": [name]}, {"labels": [name]}, {"owner": name}):
            assert found(sessions, **wanted) == set()


class TestPages:
    def test_pages_of_a_filtered_list_hold_each_once(
        self, sessions: Sessions, clock: ManualClock
    ) -> None:
        made = []
        for number in range(7):
            made.append(request(sessions, label="even" if number % 2 == 0 else "odd").id)
            clock.forward(number % 3)  # some have the same age
        even = SessionFilter(labels=["even"])

        pages, after = [], None
        while page := sessions.find(limit=2, also=even, after=after, with_manifests=False):
            pages += [session.id for session in page]
            after = page[-1]

        assert sorted(pages) == sorted(made[::2])
        assert pages == [session.id for session in sessions.find(also=even)]


class TestTheQueue:
    def test_those_before_one_are_counted(self, sessions: Sessions, clock: ManualClock) -> None:
        made = []
        for _ in range(4):
            made.append(request(sessions))
            clock.forward(1)
        sessions.claim(made[0].id, owner="trainer", lease_s=60)
        sessions.request_stop(made[1].id)

        assert [sessions.queued_before(session) for session in made] == [0, 0, 0, 1]


class TestDeleting:
    def test_a_deleted_session_is_remembered_for_the_sake_of_its_folder(
        self, sessions: Sessions, clock: ManualClock
    ) -> None:
        made = request(sessions)
        sessions.request_stop(made.id)
        assert not sessions.was_deleted(made.id)

        sessions.delete(made.id)
        sessions.prune_deleted()

        assert sessions.get(made.id) is None
        assert sessions.was_deleted(made.id)
        clock.forward(DELETED_KEPT_S + 1)
        sessions.prune_deleted()
        assert not sessions.was_deleted(made.id)

    def test_one_whose_checkpoint_another_starts_from_stays_until_that_has_ended(
        self, sessions: Sessions
    ) -> None:
        made = request(sessions)
        sessions.request_stop(made.id)
        follower = request(sessions, restarted_from=made.id)

        with pytest.raises(Conflict, match=follower.id):
            sessions.delete(made.id)
        lease = sessions.claim(follower.id, owner="trainer", lease_s=60)
        assert lease is not None
        with pytest.raises(Conflict, match=follower.id):
            sessions.delete(made.id)
        sessions.finish(lease, SessionState.COMPLETED, message="done")
        sessions.delete(made.id)

        assert sessions.get(made.id) is None


class TestCurves:
    def test_the_length_of_a_curve_is_told_without_reading_it(self, sessions: Sessions) -> None:
        session, other = request(sessions), request(sessions)
        lease = sessions.claim(session.id, owner="trainer", lease_s=60)
        assert lease is not None
        assert sessions.curve_length(session.id) == (0, 0)
        for epoch in (1, 2, 5):
            sessions.point(lease, EpochPoint(epoch=epoch, step=epoch, loss=0.5, learning_rate=1e-4))
        assert sessions.curve_length(session.id) == (3, 5)
        sessions.point(lease, EpochPoint(epoch=2, step=2, loss=0.5, learning_rate=1e-4))
        assert sessions.curve_length(session.id) == (2, 2)
        assert sessions.curve_length(other.id) == (0, 0)
