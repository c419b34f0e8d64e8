"""A trainer tells that it is there, and removes what deleted sessions have left."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ml_backend.bootstrap.records import open_database, prepare_records
from ml_backend.bootstrap.trainer import open_trainer
from ml_backend.bootstrap.training import sessions_folder
from ml_backend.domain import ProjectKey
from ml_backend.learning import SessionState, TrainingParameters, Trigger
from ml_backend.settings import Settings
from ml_backend.store.sessions import Sessions
from ml_backend.store.trainers import Trainers

WITHIN_S = 20.0
KEY = ProjectKey(origin="http://ls.example", project_id=1, created_at=2)
pytestmark = pytest.mark.unhurried


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return settings with records of their own."""
    settings = Settings(data_dir=tmp_path, database_url=None, redis_url=None)
    prepare_records(settings)
    return settings


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for something that must come about."""
    deadline = time.monotonic() + WITHIN_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_trainer_is_known_for_as_long_as_it_is_there(settings: Settings) -> None:
    trainers = Trainers(open_database(settings))
    assert trainers.present() == []
    with open_trainer(settings):
        wait_until(lambda: len(trainers.present()) == 1)
    assert trainers.present() == []


def test_the_folder_of_a_deleted_session_is_removed_and_no_other(settings: Settings) -> None:
    sessions = Sessions(open_database(settings))
    folders = {}
    for name in ("deleted", "stopped"):
        session = sessions.request(
            KEY, controls=[name], trigger=Trigger.PERSON, parameters=TrainingParameters()
        )
        lease = sessions.claim(session.id, owner="trainer", lease_s=60)
        assert lease is not None
        sessions.finish(lease, SessionState.STOPPED, message="no")
        folders[name] = sessions_folder(settings) / session.id
        folders[name].mkdir(parents=True)
        (folders[name] / "last").write_text("checkpoint")
    sessions.delete(folders["deleted"].name)

    with open_trainer(settings):
        wait_until(lambda: not folders["deleted"].exists())

    assert (folders["stopped"] / "last").is_file()
