"""Sessions about datasets in files, with the built-in network and nothing made up."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ml_backend.bootstrap import dataset_archives
from ml_backend.bootstrap.dataset_tools import CURVES, DatasetWorkshop
from ml_backend.bootstrap.networks import resolver
from ml_backend.bootstrap.workplace import Workplace
from ml_backend.datasets import DATASET_CONTROLS, DatasetSource
from ml_backend.engines.cellpose import open_segmenter
from ml_backend.errors import TrainingError
from ml_backend.learning import (
    Session,
    SessionState,
    TrainingParameters,
    Trigger,
    Version,
    VersionState,
)
from ml_backend.settings import Settings
from ml_backend.store.database import Database
from ml_backend.store.datasets import Datasets
from ml_backend.store.sessions import Sessions
from ml_backend.store.versions import Versions
from ml_backend.training.fine_tuning import BEST
from ml_backend.training.interruption import Interruption, Why
from ml_backend.training.outcome import Outcome, guarded
from ml_backend.training.session import SessionRun
from ml_backend.training.session_log import SessionLog
from tests.dataset_folders import (
    LAYOUTS,
    QUICK,
    cellpose_folder,
    folder_pairs,
    write_png,
    zipped,
)
from tests.image_server import ImageServer, Reply

pytestmark = pytest.mark.unhurried


class Laboratory:
    """Records, a folder for datasets, and sessions that run in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "data"
        self.root.mkdir()
        self.settings = Settings(
            data_dir=folder / "backend-data",
            model="nuclei-1",
            device="cpu",
            allowed_hosts="127.0.0.1",
        )
        self.settings.data_dir.mkdir()
        self.database = Database(self.settings.database_address)
        self.database.migrate()
        self.sessions, self.versions = Sessions(self.database), Versions(self.database)
        self.datasets = Datasets(self.database)
        self.segmenter = open_segmenter(torch.device("cpu"))
        self.interruption = Interruption()

    def close(self) -> None:
        self.segmenter.close()
        self.database.close()

    def request(
        self,
        source: DatasetSource,
        parameters: TrainingParameters = QUICK,
        *,
        base: str | None = None,
        restarted_from: str | None = None,
    ) -> Session:
        dataset = self.datasets.register(source)
        return self.sessions.request(
            dataset.key,
            controls=DATASET_CONTROLS,
            trigger=Trigger.PERSON,
            parameters=parameters,
            dataset=dataset.name,
            base=base,
            restarted_from=restarted_from,
        )

    def folder_of(self, session: Session) -> Path:
        return self.settings.data_dir / "sessions" / session.id

    def run(self, session: Session) -> Outcome:
        """Run a session as its process does, and record its end."""
        lease = self.sessions.claim(session.id, owner="test", lease_s=600)
        assert lease is not None
        now = self.now(session)
        journal = SessionLog(self.sessions, lease, now)
        folder = self.folder_of(session)
        folder.mkdir(parents=True, exist_ok=True)

        place = Workplace(
            settings=self.settings,
            database=self.database,
            session=now,
            journal=journal,
            interruption=self.interruption,
            folder=folder,
            device=torch.device("cpu"),
        )

        def work() -> Outcome:
            workshop = DatasetWorkshop(place, self.segmenter)
            return SessionRun(
                now,
                workshop.tools(),
                journal=journal,
                interruption=self.interruption,
                folder=folder,
            ).run()

        outcome = guarded(work, self.interruption)
        self.sessions.finish(lease, outcome.state, message=outcome.message, version=outcome.version)
        if outcome.state is SessionState.COMPLETED:
            shutil.rmtree(folder)
        return outcome

    def now(self, session: Session) -> Session:
        found = self.sessions.get(session.id)
        assert found is not None
        return found

    def version_of(self, session: Session) -> Version:
        now = self.now(session)
        version = self.versions.get(now.project, str(now.version))
        assert version is not None
        return version


class StopsAfterAnEpoch(Interruption):
    """A person who stops a session as soon as it has a point of its curve."""

    def __init__(self, sessions: Sessions, session: Session) -> None:
        super().__init__()
        self._sessions, self._session = sessions, session

    @property
    def requested(self) -> bool:
        if self.why is None and self._sessions.curve(self._session.id):
            self.why = Why.PERSON
        return super().requested


@pytest.fixture
def laboratory(tmp_path: Path) -> Iterator[Laboratory]:
    made = Laboratory(tmp_path)
    yield made
    made.close()


def assert_trained(laboratory: Laboratory, session: Session, outcome: Outcome) -> Version:
    """Check that a session made a version that others can use."""
    assert outcome.state is SessionState.COMPLETED, outcome.message
    version = laboratory.version_of(session)
    resolve = resolver(laboratory.settings, "cpu", laboratory.database)
    assert resolve(version.name) == resolve(session.id) == version.component
    assert version.state is VersionState.CANDIDATE
    assert laboratory.versions.history(session.project) == []  # nobody asked to serve it
    assert [point.epoch for point in laboratory.sessions.curve(session.id)] == [1, 2]
    folder = Path(version.component.path).parent
    assert (folder / CURVES).read_bytes().startswith(b"\x89PNG")
    weights = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["sha256"] == weights == version.component.sha256
    assert manifest["dataset"] == session.dataset
    return version


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_a_network_learns_from_every_layout(
    laboratory: Laboratory, layout: Callable[[Path], DatasetSource]
) -> None:
    session = laboratory.request(layout(laboratory.root))

    outcome = laboratory.run(session)

    version = assert_trained(laboratory, session, outcome)
    assert version.name == "nuclei-1-d1-v1"
    assert version.parent == "nuclei-1"
    report = laboratory.now(session).report
    assert report["images"] == {"training": 4, "hold_out": 1}
    assert report["gate"]["candidate"]["mean"] is not None
    assert report["verdict"] == outcome.message


def test_a_test_set_is_scored_every_time_and_at_the_end(laboratory: Laboratory) -> None:
    folder_pairs(laboratory.root / "test", (20, 21))
    source = replace(
        folder_pairs(laboratory.root), test_images="test/images/", test_annotations="test/masks/"
    )
    session = laboratory.request(source)

    version = assert_trained(laboratory, session, laboratory.run(session))

    test = laboratory.now(session).report["test"]
    assert (test["images"], test["objects"]) == (2, 32)
    assert 0 <= test["base"]["ap50"] <= 1
    assert version.metrics["test"] == test
    for point in laboratory.sessions.curve(session.id):
        assert point.pixels is not None
        assert all(0 <= value <= 1 for value in point.pixels)


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with ImageServer() as running:
        yield running


def test_a_network_learns_from_an_archive_elsewhere(
    laboratory: Laboratory, server: ImageServer
) -> None:
    cellpose_folder(laboratory.root)
    server.routes["/nuclei.zip"] = Reply(body=zipped(laboratory.root), headers={"ETag": '"1"'})
    session = laboratory.request(DatasetSource(root=f"{server.origin}/nuclei.zip"))

    assert_trained(laboratory, session, laboratory.run(session))

    assert session.dataset == "nuclei"
    assert server.paths() == ["/nuclei.zip"]
    left = [path.name for path in laboratory.folder.rglob(dataset_archives.UNPACKED)]
    assert left == []


def test_a_network_learns_from_an_archive_on_this_machine(laboratory: Laboratory) -> None:
    folder_pairs(laboratory.root)
    archive = laboratory.folder / "pairs.zip"
    archive.write_bytes(zipped(laboratory.root))
    session = laboratory.request(DatasetSource(root=str(archive)))

    assert_trained(laboratory, session, laboratory.run(session))


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(status=404), "no archive"),
        (Reply(body=b"<html>login</html>", headers={"Content-Type": "text/html"}), "web page"),
        (Reply(body=b"x" * 3_000_000), "MAX_DATASET_MB"),
        (Reply(body=b"no archive"), "cannot be unpacked"),
    ],
)
def test_an_archive_that_is_not_to_be_had_is_a_sentence(
    laboratory: Laboratory, server: ImageServer, reply: Reply, said: str
) -> None:
    laboratory.settings = laboratory.settings.model_copy(update={"max_dataset_mb": 2})
    server.routes["/nuclei.zip"] = reply
    session = laboratory.request(DatasetSource(root=f"{server.origin}/nuclei.zip"))

    outcome = laboratory.run(session)

    assert outcome.state is SessionState.FAILED
    assert said in outcome.message
    assert " image" not in outcome.message.replace("images and masks", "")


def test_an_archive_in_this_network_is_not_fetched_unless_it_is_allowed(
    laboratory: Laboratory, server: ImageServer
) -> None:
    laboratory.settings = laboratory.settings.model_copy(update={"allowed_hosts": ""})
    session = laboratory.request(DatasetSource(root=f"{server.origin}/nuclei.zip"))

    outcome = laboratory.run(session)

    assert outcome.state is SessionState.FAILED
    assert "ALLOWED_HOSTS" in outcome.message
    assert server.asked == []


def test_a_dataset_that_is_gone_is_a_sentence(laboratory: Laboratory) -> None:
    source = folder_pairs(laboratory.root)
    session = laboratory.request(source)
    shutil.rmtree(laboratory.root)

    outcome = laboratory.run(session)

    assert outcome.state is SessionState.FAILED
    assert "no folder" in outcome.message


def test_what_it_learns_from_is_settled_when_it_begins(laboratory: Laboratory) -> None:
    session = laboratory.request(folder_pairs(laboratory.root))
    laboratory.interruption = StopsAfterAnEpoch(laboratory.sessions, session)
    assert laboratory.run(session).state is SessionState.STOPPED
    laboratory.interruption = Interruption()
    shutil.rmtree(laboratory.root)
    laboratory.sessions.resume(session.id)

    assert_trained(laboratory, session, laboratory.run(session))


def test_it_starts_from_the_model_that_was_asked_for(laboratory: Laboratory) -> None:
    source = folder_pairs(laboratory.root)
    first = laboratory.request(source)
    laboratory.run(first)

    for name in ("nuclei-1-d1-v1", first.id):
        session = laboratory.request(source, base=name)
        version = assert_trained(laboratory, session, laboratory.run(session))
        assert version.parent == "nuclei-1-d1-v1"
        assert version.name.startswith("nuclei-1-d1-v")

    unknown = laboratory.request(source, base="none-such")
    outcome = laboratory.run(unknown)
    assert outcome.state is SessionState.FAILED
    assert "none-such" in outcome.message


def test_a_restart_goes_on_from_the_model_that_was_made(laboratory: Laboratory) -> None:
    source = folder_pairs(laboratory.root)
    first = laboratory.request(source)
    laboratory.run(first)

    again = laboratory.request(source, restarted_from=first.id)
    version = assert_trained(laboratory, again, laboratory.run(again))

    assert version.parent == "nuclei-1-d1-v1"
    assert version.name == "nuclei-1-d1-v2"
    manifest = json.loads((Path(version.component.path).parent / "manifest.json").read_text())
    assert manifest["restarted_from"] == first.id
    # compared with the network that was there before any training
    gate = laboratory.now(again).report["gate"]
    assert gate["base"] == laboratory.now(first).report["gate"]["base"]


def test_a_restart_goes_on_from_a_stopped_session_which_can_be_deleted(
    laboratory: Laboratory,
) -> None:
    source = folder_pairs(laboratory.root)
    first = laboratory.request(source)
    laboratory.interruption = StopsAfterAnEpoch(laboratory.sessions, first)
    assert laboratory.run(first).state is SessionState.STOPPED
    laboratory.interruption = Interruption()
    best = (laboratory.folder_of(first) / BEST).read_bytes()
    shutil.rmtree(laboratory.root)  # the dataset was settled
    again = laboratory.request(source, restarted_from=first.id)
    laboratory.interruption.why = Why.PERSON
    laboratory.run(again)  # takes over, and is stopped at once
    laboratory.interruption = Interruption()

    shutil.rmtree(laboratory.folder_of(first))
    laboratory.sessions.resume(again.id)
    version = assert_trained(laboratory, again, laboratory.run(again))

    assert version.component.sha256 != hashlib.sha256(best).hexdigest()
    assert laboratory.now(again).report["images"] == {"training": 4, "hold_out": 1}


def test_a_restart_of_nothing_is_a_sentence(laboratory: Laboratory) -> None:
    source = folder_pairs(laboratory.root)
    gone = laboratory.request(source, restarted_from="f" * 32)

    outcome = laboratory.run(gone)

    assert outcome.state is SessionState.FAILED
    assert "was deleted" in outcome.message


def test_contrast_is_equalised_for_scores_as_for_training(laboratory: Laboratory) -> None:
    source = folder_pairs(laboratory.root)
    session = laboratory.request(source, replace(QUICK, clahe=True))

    version = assert_trained(laboratory, session, laboratory.run(session))

    manifest = json.loads((Path(version.component.path).parent / "manifest.json").read_text())
    assert manifest["parameters"]["clahe"] is True


def test_an_image_without_objects_alone_teaches_nothing(laboratory: Laboratory) -> None:
    source = folder_pairs(laboratory.root)
    for path in (laboratory.root / "masks").iterdir():
        write_png(path, np.zeros((96, 96), np.uint16))
    session = laboratory.request(source)

    outcome = laboratory.run(session)

    assert outcome.state is SessionState.FAILED
    assert "outlined object" in outcome.message


def test_a_file_that_is_no_archive_is_refused(laboratory: Laboratory) -> None:
    path = laboratory.folder / "notes.txt"
    path.write_text("no archive")

    with pytest.raises(TrainingError, match="no zip or tar archive"):
        dataset_archives.open_dataset(
            laboratory.settings,
            DatasetSource(root=str(path)),
            laboratory.folder,
            on_file=lambda: None,
        )
