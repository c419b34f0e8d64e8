"""Sessions about datasets that begin in the process of whoever asks, on every database."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from ml_backend.datasets import DATASET_CONTROLS, DatasetSource, StoredDataset
from ml_backend.learning import EpochPoint, Lease, SessionState, TrainingParameters, Trigger
from ml_backend.store.database import Database
from ml_backend.store.datasets import Datasets
from ml_backend.store.sessions import Sessions
from tests.contracts.learning_records import PROJECT
from tests.fakes import ManualClock

PARAMETERS = TrainingParameters(n_epochs=3)
LEASE_S = 30.0


@pytest.fixture
def clock() -> ManualClock:
    """Return our clock."""
    return ManualClock()


@pytest.fixture
def sessions(database: Database, clock: ManualClock) -> Sessions:
    """Return the empty table."""
    return Sessions(database, clock=clock)


@pytest.fixture
def dataset(database: Database) -> StoredDataset:
    """Return a dataset."""
    return Datasets(database).register(DatasetSource(root="/data/nuclei"))


def begin(sessions: Sessions, dataset: StoredDataset) -> Lease:
    return sessions.begin(
        dataset, parameters=PARAMETERS, owner="person", lease_s=LEASE_S, label="cells", base="n-1"
    )


def test_a_session_that_begins_is_nobody_elses(
    sessions: Sessions, dataset: StoredDataset, clock: ManualClock
) -> None:
    lease = begin(sessions, dataset)

    session = sessions.get(lease.session_id)
    assert session is not None
    assert session.state is SessionState.RUNNING
    assert (session.dataset, session.label, session.base) == ("nuclei", "cells", "n-1")
    assert (session.project, session.controls) == (dataset.key, DATASET_CONTROLS)
    assert (session.parameters, session.attempts) == (PARAMETERS, 1)
    assert session.started_at == session.heartbeat_at == clock.now
    assert sessions.claimable() == []
    assert sessions.claim(session.id, owner="trainer", lease_s=LEASE_S) is None


def test_its_lease_is_like_any_other(
    sessions: Sessions, dataset: StoredDataset, clock: ManualClock
) -> None:
    lease = begin(sessions, dataset)
    assert not sessions.heartbeat(lease, LEASE_S)
    sessions.request_stop(lease.session_id)
    assert sessions.heartbeat(lease, LEASE_S)

    clock.forward(LEASE_S + 1)

    assert sessions.claim(lease.session_id, owner="trainer", lease_s=LEASE_S) is not None


def test_scores_of_pixels_are_kept_with_its_points(
    sessions: Sessions, dataset: StoredDataset
) -> None:
    lease = begin(sessions, dataset)
    plain = EpochPoint(epoch=1, step=4, loss=0.5, learning_rate=1e-3)
    scored = replace(plain, epoch=2, pixels=(0.9, 0.8, 0.85, 0.74))

    for point in (plain, scored):
        sessions.point(lease, point)

    assert sessions.curve(lease.session_id) == [plain, scored]


def test_several_sessions_about_one_dataset_run_at_once(
    sessions: Sessions, dataset: StoredDataset
) -> None:
    assert begin(sessions, dataset).session_id != begin(sessions, dataset).session_id


@pytest.mark.parametrize("state", [SessionState.STOPPED, SessionState.FAILED])
def test_one_that_has_ended_early_is_taken_up(
    sessions: Sessions, dataset: StoredDataset, state: SessionState
) -> None:
    first = begin(sessions, dataset)
    sessions.finish(first, state, message="It ended.")

    lease = sessions.take_up(first.session_id, owner="person", lease_s=LEASE_S)

    session = sessions.get(first.session_id)
    assert lease is not None
    assert session is not None
    assert lease.number == session.lease == first.number + 1
    assert session.state is SessionState.RUNNING
    assert (session.message, session.finished_at, session.attempts) == (None, None, 1)
    sessions.note(lease, progress={"epoch": 2})


def test_one_that_waits_or_lost_its_trainer_is_taken_up(
    sessions: Sessions, dataset: StoredDataset, clock: ManualClock
) -> None:
    waiting = sessions.request(
        dataset.key,
        controls=DATASET_CONTROLS,
        trigger=Trigger.PERSON,
        parameters=PARAMETERS,
        dataset=dataset.name,
    )
    lost = begin(sessions, dataset)
    clock.forward(LEASE_S + 1)

    for session_id in (waiting.id, lost.session_id):
        assert sessions.take_up(session_id, owner="person", lease_s=LEASE_S) is not None


def test_one_that_runs_or_has_completed_is_not(sessions: Sessions, dataset: StoredDataset) -> None:
    lease = begin(sessions, dataset)
    assert sessions.take_up(lease.session_id, owner="person", lease_s=LEASE_S) is None
    sessions.finish(lease, SessionState.COMPLETED, message="Done.")
    assert sessions.take_up(lease.session_id, owner="person", lease_s=LEASE_S) is None
    assert sessions.take_up("none", owner="person", lease_s=LEASE_S) is None


def test_a_session_about_a_project_is_not(sessions: Sessions) -> None:
    session = sessions.request(
        PROJECT, controls=["cells"], trigger=Trigger.PERSON, parameters=PARAMETERS
    )

    assert sessions.take_up(session.id, owner="person", lease_s=LEASE_S) is None


def test_of_many_who_take_it_up_at_once_one_gets_it(
    sessions: Sessions, dataset: StoredDataset
) -> None:
    first = begin(sessions, dataset)
    sessions.finish(first, SessionState.STOPPED, message="It was stopped.")
    start = threading.Barrier(4)

    def take(number: int) -> Lease | None:
        start.wait()
        return sessions.take_up(first.session_id, owner=str(number), lease_s=LEASE_S)

    with ThreadPoolExecutor(4) as pool:
        leases = [lease for lease in pool.map(take, range(4)) if lease is not None]

    assert len(leases) == 1
