"""Sessions about a project of Label Studio that go on where another one ended."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ml_backend.bootstrap.session_tools import Workshop
from ml_backend.bootstrap.training import sessions_folder
from ml_backend.bootstrap.workplace import Workplace
from ml_backend.engines.catalogue import resolve_component
from ml_backend.engines.cellpose import CellposeSegmenter, open_segmenter
from ml_backend.learning import Session, SessionState, Trigger
from ml_backend.settings import Settings
from ml_backend.store.database import Database
from ml_backend.training.fine_tuning import BEST, CHECKPOINT
from ml_backend.training.interruption import Interruption, Why
from ml_backend.training.outcome import Outcome, guarded
from ml_backend.training.session import SessionRun
from ml_backend.training.session_log import SessionLog
from tests.dataset_folders import QUICK
from tests.training_site import PROJECT, TrainingSite, training_site

pytestmark = [
    pytest.mark.unhurried,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes through /proc"),
]


class StopsAfterAnEpoch(Interruption):
    """A person who stops a session as soon as it has a point of its curve."""

    def __init__(self, site: TrainingSite, session: Session) -> None:
        super().__init__()
        self._site, self._session = site, session

    @property
    def requested(self) -> bool:
        if self.why is None and self._site.sessions.curve(self._session.id):
            self.why = Why.PERSON
        return super().requested


class Runner:
    """Runs sessions of a site in this process."""

    def __init__(self, site: TrainingSite, segmenter: CellposeSegmenter) -> None:
        self.site, self.segmenter = site, segmenter
        self.settings = Settings(
            data_dir=site.data_dir, model="nuclei-1", device="cpu", allowed_hosts="127.0.0.1"
        )
        self.database = Database(self.settings.database_address)

    def folder_of(self, session: Session) -> Path:
        return sessions_folder(self.settings) / session.id

    def restart(self, session: Session) -> Session:
        return self.site.sessions.request(
            PROJECT,
            controls=["cells"],
            trigger=Trigger.PERSON,
            parameters=QUICK,
            restarted_from=session.id,
        )

    def run(self, session: Session, interruption: Interruption | None = None) -> Outcome:
        heard = interruption or Interruption()
        lease = self.site.sessions.claim(session.id, owner="test", lease_s=600)
        assert lease is not None
        now = self.site.now(session)
        journal = SessionLog(self.site.sessions, lease, now)
        folder = self.folder_of(session)
        folder.mkdir(parents=True, exist_ok=True)

        place = Workplace(
            settings=self.settings,
            database=self.database,
            session=now,
            journal=journal,
            interruption=heard,
            folder=folder,
            device=torch.device("cpu"),
        )

        def work() -> Outcome:
            workshop = Workshop(place, self.segmenter)
            return SessionRun(
                now, workshop.tools(), journal=journal, interruption=heard, folder=folder
            ).run()

        outcome = guarded(work, heard)
        self.site.sessions.finish(
            lease, outcome.state, message=outcome.message, version=outcome.version
        )
        if outcome.state is SessionState.COMPLETED:
            shutil.rmtree(folder)
        return outcome


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with training_site(tmp_path) as site, open_segmenter(torch.device("cpu")) as segmenter:
        made = Runner(site, segmenter)
        yield made
        made.database.close()


def test_one_that_completed_is_gone_on_with_from_its_version(runner: Runner) -> None:
    first = runner.site.request(QUICK)
    runner.run(first)

    outcome = runner.run(runner.restart(first))

    assert outcome.state is SessionState.COMPLETED, outcome.message
    newest, oldest = runner.site.versions.all(PROJECT)
    assert (oldest.name, newest.name) == ("nuclei-1-p1-v1", "nuclei-1-p1-v2")
    assert newest.parent == oldest.name
    assert newest.component.sha256 != oldest.component.sha256


@pytest.mark.parametrize("left", [BEST, CHECKPOINT])
def test_one_that_was_stopped_is_gone_on_with_from_what_it_left(runner: Runner, left: str) -> None:
    first = runner.site.request(QUICK)
    stopped = runner.run(first, StopsAfterAnEpoch(runner.site, first))
    assert stopped.state is SessionState.STOPPED, stopped.message
    other = {BEST: CHECKPOINT, CHECKPOINT: BEST}[left]
    (runner.folder_of(first) / other).unlink()
    asked = len(runner.site.images.asked)
    again = runner.restart(first)

    outcome = runner.run(again)

    assert outcome.state is SessionState.COMPLETED, outcome.message
    (version,) = runner.site.versions.all(PROJECT)
    base = resolve_component("nuclei-1", models_dir=Path("/nowhere"), cuda=False)
    assert version.component.sha256 != base.sha256
    assert runner.site.now(again).manifest == runner.site.now(first).manifest
    assert len(runner.site.images.asked) == asked  # what it learned from was settled


def test_one_that_left_nothing_is_a_sentence(runner: Runner) -> None:
    first = runner.site.request(QUICK)
    runner.run(first, StopsAfterAnEpoch(runner.site, first))
    shutil.rmtree(runner.folder_of(first))

    outcome = runner.run(runner.restart(first))

    assert outcome.state is SessionState.FAILED
    assert "left no checkpoint" in outcome.message
