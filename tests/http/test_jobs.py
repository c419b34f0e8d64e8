"""How far an event, and the training it led to, have come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ml_backend.domain import ProjectKey
from ml_backend.learning import SessionState, TrainingParameters, Trigger
from ml_backend.store.database import Database
from ml_backend.store.events import EventState, join_ids
from ml_backend.store.sessions import Sessions
from tests.http.conftest import Backend, recorded

KEY = ProjectKey(origin="http://ls.example", project_id=1, created_at=1_795_215_681)


@pytest.fixture
def sessions(backend: Backend, tmp_path: Path) -> Sessions:
    """Return the sessions on the backend's records."""
    return Sessions(Database(f"sqlite:///{tmp_path / 'records.sqlite3'}"))


def press_start_training(backend: Backend) -> str:
    """Send START_TRAINING as recorded; return its job."""
    body = recorded("webhook_START_TRAINING")["body"]
    answer: dict[str, Any] = backend.client.post("/webhook", json=body).json()
    return str(answer["job"])


def queue(sessions: Sessions, *controls: str) -> str:
    """Queue a session; return its id."""
    return sessions.request(
        KEY,
        controls=controls,
        trigger=Trigger.START_TRAINING,
        parameters=TrainingParameters(),
    ).id


def status(backend: Backend, job: str) -> dict[str, Any]:
    """Return what /job_status answers."""
    answer: dict[str, Any] = backend.client.post("/job_status", json={"job": job}).json()
    return answer


def test_a_job_is_followed_from_the_button_to_the_version(
    backend: Backend, sessions: Sessions
) -> None:
    job = press_start_training(backend)
    states = [status(backend, job)["state"]]
    session = queue(sessions, "cells")
    backend.own.events.finish(job, EventState.DONE, session=session)
    states.append(status(backend, job)["state"])
    lease = sessions.claim(session, owner="trainer", lease_s=60)
    assert lease is not None
    sessions.note(lease, progress={"epoch": 3, "epochs": 10})
    running = status(backend, job)
    states.append(running["state"])
    sessions.finish(
        lease, SessionState.COMPLETED, message="It is better.", version="nuclei-1-p1-v1"
    )
    done = status(backend, job)
    states.append(done["state"])

    assert states == ["queued", "queued", "running", "completed"]
    assert running["sessions"][0]["progress"] == {"epoch": 3, "epochs": 10}
    assert (done["version"], done["message"]) == ("nuclei-1-p1-v1", "It is better.")


@pytest.mark.parametrize("state", [SessionState.FAILED, SessionState.STOPPED])
def test_a_job_without_a_version_says_why(
    backend: Backend, sessions: Sessions, state: SessionState
) -> None:
    job = press_start_training(backend)
    session = queue(sessions, "cells")
    backend.own.events.finish(job, EventState.DONE, session=session)
    lease = sessions.claim(session, owner="trainer", lease_s=60)
    assert lease is not None
    sessions.finish(lease, state, message="The disk is full.")

    answer = status(backend, job)

    assert (answer["state"], answer["version"]) == (state.value, None)
    assert answer["message"] == "The disk is full."


def test_a_job_of_two_networks_is_done_when_both_are(backend: Backend, sessions: Sessions) -> None:
    job = press_start_training(backend)
    ids = [queue(sessions, "cells"), queue(sessions, "nuclei")]
    backend.own.events.finish(job, EventState.DONE, session=join_ids(ids))
    states = []
    for session in ids:
        lease = sessions.claim(session, owner="trainer", lease_s=60)
        assert lease is not None
        states.append(status(backend, job)["state"])
        sessions.finish(lease, SessionState.COMPLETED, message="Nothing has changed.")
        states.append(status(backend, job)["state"])

    assert states == ["running", "queued", "running", "completed"]
    assert len(status(backend, job)["sessions"]) == 2


def test_a_refused_job_has_failed_and_says_why(backend: Backend) -> None:
    job = press_start_training(backend)
    backend.own.events.finish(job, EventState.FAILED, "Project 1 is unknown here.")

    answer = status(backend, job)

    assert (answer["state"], answer["message"]) == ("failed", "Project 1 is unknown here.")
    assert answer["sessions"] == []
