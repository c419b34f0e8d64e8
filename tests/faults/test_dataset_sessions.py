"""Sessions about datasets whose processes are killed, and trainers that leave others' alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ml_backend.datasets import DATASET_CONTROLS, StoredDataset
from ml_backend.learning import ENDED, Session, SessionState, Trigger
from ml_backend.store.database import Database
from ml_backend.store.datasets import Datasets
from tests.dataset_folders import QUICK, cellpose_folder
from tests.running_backend import STOP_WITHIN_S
from tests.training_site import TrainingSite, training_site

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes through /proc"),
]

WITHIN_S = 300.0  # of a busy machine; a whole session takes seconds
LONG = replace(QUICK, n_epochs=24, validation_interval=6)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[TrainingSite]:
    with training_site(tmp_path, tasks=0) as made:
        yield made


@pytest.fixture
def dataset(site: TrainingSite) -> StoredDataset:
    """Return a dataset on disk that the records know."""
    source = cellpose_folder(make_folder(site.folder / "cells"))
    return Datasets(Database(f"sqlite:///{site.data_dir / 'records.sqlite3'}")).register(source)


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


def request(site: TrainingSite, dataset: StoredDataset) -> Session:
    return site.sessions.request(
        dataset.key,
        controls=DATASET_CONTROLS,
        trigger=Trigger.PERSON,
        parameters=LONG,
        dataset=dataset.name,
    )


def wait_for(site: TrainingSite, what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not what():
        assert time.monotonic() < deadline, site.log()
        time.sleep(0.02)


def epochs(site: TrainingSite, session: Session) -> list[int]:
    return [point.epoch for point in site.sessions.curve(session.id)]


def assert_trained_once(site: TrainingSite, session: Session) -> None:
    now = site.now(session)
    (version,) = site.versions.all(session.project)
    assert now.state is SessionState.COMPLETED, now.message
    assert now.version == version.name == f"nuclei-1-d{session.project.project_id}-v1"
    assert epochs(site, session) == list(range(1, LONG.n_epochs + 1 if LONG.n_epochs else 0))
    assert site.versions.history(session.project) == []


def test_a_session_that_is_killed_goes_on_also_when_its_folder_is_gone(
    site: TrainingSite, dataset: StoredDataset
) -> None:
    session = request(site, dataset)
    site.start_trainer()

    for least in (2, 6):
        wait_for(site, lambda least=least: len(epochs(site, session)) >= least)  # type: ignore[misc]
        for pid in site.processes("train-session"):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(site.folder / "cells")  # what it learns from was settled
    wait_for(site, lambda: site.now(session).state in ENDED)

    assert site.now(session).attempts >= 2
    assert_trained_once(site, session)


def test_a_stop_is_honoured_and_a_resumed_session_goes_on(
    site: TrainingSite, dataset: StoredDataset
) -> None:
    session = request(site, dataset)
    site.start_trainer()
    wait_for(site, lambda: len(epochs(site, session)) >= 2)

    site.sessions.request_stop(session.id)
    wait_for(site, lambda: site.now(session).state in ENDED)
    stopped = site.now(session)
    site.sessions.resume(session.id)
    wait_for(site, lambda: site.now(session).state is SessionState.COMPLETED)

    assert stopped.state is SessionState.STOPPED
    assert_trained_once(site, session)


def test_a_trainer_leaves_the_session_of_a_command_alone_until_it_is_killed(
    site: TrainingSite, dataset: StoredDataset
) -> None:
    trainer = site.start_trainer()
    options = "--epochs 24 --samples 4 --batch-size 2 --crop 64 --validation-interval 6"
    with (site.folder / "command.log").open("wb") as log:
        command = subprocess.Popen(
            [sys.executable, "-m", "ml_backend", "train", dataset.source.root, *options.split()],
            env=site.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    wait_for(site, lambda: bool(site.sessions.find(dataset.key)))
    (session,) = site.sessions.find(dataset.key)
    wait_for(site, lambda: len(epochs(site, session)) >= 3)
    between = site.now(session)
    own = site.processes("train-session")

    command.kill()
    command.wait(STOP_WITHIN_S)
    wait_for(site, lambda: site.now(session).state in ENDED)

    assert own == []
    assert (between.state, between.attempts) == (SessionState.RUNNING, 1)
    assert site.now(session).attempts == 2  # the trainer took over once its lease had run out
    assert_trained_once(site, session)
    trainer.terminate()
    trainer.wait(STOP_WITHIN_S)
