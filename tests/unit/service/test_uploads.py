"""Checkpoints of people's own: what they become, and what is left of those that are refused."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from ml_backend.bootstrap.models import open_model_names
from ml_backend.domain import Component, ProjectKey
from ml_backend.engines.networks import load_network
from ml_backend.engines.residual_unet import ResidualUNet, ResidualUNetConfig
from ml_backend.errors import CheckpointInvalid, Conflict, EngineError
from ml_backend.learning import UPLOADS, Version, VersionState
from ml_backend.model_files.folders import ASIDE
from ml_backend.model_files.known import built_in_networks
from ml_backend.model_files.version_folders import Publisher, project_slug
from ml_backend.service.upload_request import UploadRequest, checked_upload
from ml_backend.service.uploads import LEFT_AFTER_S, Uploads
from ml_backend.store.database import Database
from ml_backend.store.versions import Versions
from tests.fakes import ManualClock

pytestmark = pytest.mark.unhurried

PROJECT = ProjectKey(origin="http://ls.example", project_id=3, created_at=9)
CONFIG = ResidualUNetConfig(
    channels=(4, 8), encoder_blocks=(0, 1), decoder_blocks=(1,), diam_mean=20.0
)


class Engine:
    """Takes uploads in on real records; its device may fail."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.versions = Versions(database)
        self.models = folder / "models"
        self.clock = ManualClock()
        self.fault: Exception | None = None
        self.proven: list[Component] = []
        self.uploads = Uploads(
            models=self.models,
            versions=self.versions,
            names=open_model_names(database),
            prove=self.prove,
            cellpose_dir=folder / "cellpose",
            max_bytes=10_000_000,
            clock=self.clock,
        )

    def prove(self, component: Component) -> None:
        """Load a network as an engine does."""
        if self.fault is not None:
            raise self.fault
        load_network(component, torch.device("cpu"))
        assert self.versions.named(component.name) == []  # it is announced only afterwards
        self.proven.append(component)

    def take(self, file: Path, **said: Any) -> Version:
        """Take a file in."""
        return self.uploads.take(file, request(file, **said))

    def left(self) -> list[str]:
        """Return the names in the folder of uploads."""
        folder = self.models / project_slug(UPLOADS)
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def request(file: Path, **said: Any) -> UploadRequest:
    """Return what is said of a file."""
    return checked_upload(**{"name": "mine", "file_name": file.name, "by": "Ada", **said})


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    database.migrate()
    yield Engine(database, tmp_path)
    database.close()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Return the file of a small network."""
    torch.manual_seed(1)
    path = tmp_path / "small.safetensors"
    metadata = {"config": json.dumps(CONFIG.to_json())}
    save_file(ResidualUNet(CONFIG).state_dict(), path, metadata=metadata)
    return path


def test_a_checkpoint_becomes_an_immutable_version(engine: Engine, weights: Path) -> None:
    made = engine.take(
        weights, licence="CC-BY-4.0", description="Cells of onions.", diameter="31.5"
    )

    folder = Path(made.component.path).parent
    manifest = json.loads((folder / "manifest.json").read_text())
    assert engine.versions.get(UPLOADS, "mine") == made
    assert (made.name, made.project, made.state) == ("mine", UPLOADS, VersionState.CANDIDATE)
    assert (made.parent, made.session_id, made.controls) == ("", None, ())
    assert made.message == "Cells of onions."
    assert (made.component.licence, made.component.diameter) == ("CC-BY-4.0", 31.5)
    assert folder == Publisher(engine.models).folder(UPLOADS, "mine")
    assert manifest["uploaded"]["by"] == "Ada"
    assert manifest["uploaded"]["file"] == "small.safetensors"
    assert manifest["sha256"] == made.component.sha256
    assert [one.sha256 for one in engine.proven] == [made.component.sha256]
    assert engine.left() == ["mine"]
    assert load_file(made.component.path).keys() == load_file(weights).keys()


def test_nothing_said_is_an_unknown_licence(engine: Engine, weights: Path) -> None:
    made = engine.take(weights)

    assert made.component.licence == "unknown"
    assert made.message == "Uploaded by Ada."


def test_weights_that_are_known_keep_their_licence(engine: Engine, weights: Path) -> None:
    first = engine.take(weights, name="first", licence="CC-BY-NC-4.0")
    again = engine.take(Path(first.component.path), name="again", licence="CC0-1.0")
    stricter = engine.take(weights, name="stricter", licence="CC-BY-NC-ND-4.0")

    assert again.component.licence == "CC-BY-NC-4.0"
    assert stricter.component.licence == "CC-BY-NC-ND-4.0"


def test_the_built_in_network_under_another_name_keeps_its_licence(engine: Engine) -> None:
    (shipped,) = built_in_networks()

    assert engine.take(shipped.path).component.licence == shipped.licence
    assert engine.take(shipped.path, name="b", licence="CC-BY-4.0").component.licence == "CC-BY-4.0"


def test_cellpose_s_own_file_keeps_its_licence(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "cellpose").mkdir()
    torch.save(load_file(built_in_networks()[0].path), tmp_path / "mine.pt")
    shutil.copyfile(tmp_path / "mine.pt", tmp_path / "cellpose" / "cpsam")

    made = engine.take(tmp_path / "mine.pt", licence="CC0-1.0")

    assert made.component.licence == "CC-BY-NC-4.0"


@pytest.mark.parametrize("name", ["nuclei-1", "cpsam", "auto", "uploads", "trained"])
def test_a_name_that_is_taken_is_refused(engine: Engine, weights: Path, name: str) -> None:
    component = Component(
        name="trained", architecture="residual-unet", sha256="0" * 64, path="/x", licence="CC0-1.0"
    )
    engine.versions.add(
        Version(
            project=PROJECT,
            name="trained",
            state=VersionState.CANDIDATE,
            controls=(),
            component=component,
            session_id=None,
            parent="",
            created_at=0.0,
            metrics={},
        )
    )

    with pytest.raises(Conflict, match="choose another name"):
        engine.take(weights, name=name)
    assert engine.left() == []


def test_the_second_of_two_of_a_name_is_refused(engine: Engine, weights: Path) -> None:
    first = engine.take(weights)

    with pytest.raises(Conflict, match="already"):
        engine.take(weights)
    assert engine.versions.get(UPLOADS, "mine") == first


def test_a_folder_that_somebody_else_writes_just_now_is_theirs(
    engine: Engine, weights: Path
) -> None:
    folder = Publisher(engine.models).folder(UPLOADS, "mine")
    folder.mkdir(parents=True)
    os.utime(folder, (engine.clock.now, engine.clock.now))

    with pytest.raises(Conflict, match="just now"):
        engine.take(weights)
    engine.clock.forward(LEFT_AFTER_S + 1)  # then whoever began it was killed

    assert engine.take(weights).component.path == str(folder / "weights.safetensors")


@pytest.mark.parametrize(
    "fault", [EngineError("The device is full."), CheckpointInvalid("It answers with NaN.")]
)
def test_a_network_that_does_not_run_leaves_nothing(
    engine: Engine, weights: Path, fault: Exception
) -> None:
    engine.fault = fault

    with pytest.raises(type(fault)):
        engine.take(weights)

    assert engine.left() == []
    assert engine.versions.of_all_projects() == []
    engine.fault = None
    assert engine.take(weights).name == "mine"


def test_a_file_that_is_no_checkpoint_leaves_nothing(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"PK\x05\x06" + bytes(18))

    with pytest.raises(CheckpointInvalid):
        engine.take(tmp_path / "in")

    assert engine.left() == []


def test_what_a_killed_engine_left_is_swept_with_the_rest(engine: Engine) -> None:
    folder = engine.models / project_slug(UPLOADS) / f"{ASIDE}1"
    folder.mkdir(parents=True)
    os.utime(folder, (0, 0))

    Publisher(engine.models).sweep()

    assert engine.left() == []


# Packages


def package(folder: Path, weights: Path, manifest: dict[str, Any], **described: Any) -> Path:
    """Return a package as ours are, with the parts that matter here."""
    path = folder / "package.zip"
    description = {
        "type": "model",
        "name": "Onion cells",
        "license": "CC-BY-NC-4.0",
        "config": {
            "label_studio_cell_backend": {
                "weights": "weights.safetensors",
                "manifest": "manifest.json",
            }
        },
        **described,
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bioimageio.yaml", yaml.safe_dump(description))
        archive.write(weights, "weights.safetensors")
        archive.writestr("manifest.json", json.dumps(manifest))
    return path


def test_a_package_brings_its_licence_its_size_and_its_lineage(
    engine: Engine, weights: Path, tmp_path: Path
) -> None:
    manifest = {
        "diameter": 25.0,
        "parent": {"name": "cpsam"},
        "lineage": [{"name": "cpsam", "licence": "CC-BY-NC-4.0"}],
        "metrics": {"ap": 0.7, "where": "/home/ada/cells"},
        "session": "theirs",
    }

    made = engine.take(package(tmp_path, weights, manifest), licence="CC0-1.0")

    kept = json.loads((Path(made.component.path).parent / "manifest.json").read_text())
    assert (made.component.licence, made.component.diameter) == ("CC-BY-NC-4.0", 25.0)
    assert made.parent == "cpsam"
    assert kept["lineage"] == manifest["lineage"]
    assert kept["metrics"] == {"ap": 0.7}
    assert "session" not in kept


def test_a_licence_of_an_ancestor_holds_where_the_package_forgets_it(
    engine: Engine, weights: Path, tmp_path: Path
) -> None:
    manifest = {"lineage": [{"name": "cpsam", "licence": "CC-BY-NC-4.0"}, 7]}
    sent = package(tmp_path, weights, manifest, license="CC0-1.0")

    assert engine.take(sent).component.licence == "CC-BY-NC-4.0"


def test_a_package_that_unpacks_to_too_much_is_not_unpacked(
    engine: Engine, weights: Path, tmp_path: Path
) -> None:
    sent = package(tmp_path, weights, {})
    with zipfile.ZipFile(sent, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("more", bytes(20_000_000))
    assert sent.stat().st_size < 1_000_000

    with pytest.raises(CheckpointInvalid, match="MAX_MODEL_MB"):
        engine.take(sent)
    assert engine.left() == []


def test_what_a_package_tells_at_length_is_left_out(
    engine: Engine, weights: Path, tmp_path: Path
) -> None:
    sent = package(tmp_path, weights, {"metrics": {str(number): 0.5 for number in range(200_000)}})

    made = engine.take(sent)

    assert (Path(made.component.path).parent / "manifest.json").stat().st_size < 10_000
    assert replace(made.component, path="").name == "mine"
