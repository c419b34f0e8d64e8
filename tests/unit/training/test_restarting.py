"""A session that goes on where another one ended."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ml_backend.domain import Component
from ml_backend.engines.catalogue import resolve_component
from ml_backend.errors import CheckpointInvalid, TrainingError
from ml_backend.learning import Session, SessionState, Version, VersionState
from ml_backend.training.fine_tuning import BEST, CHECKPOINT
from ml_backend.training.folders import DATASET
from ml_backend.training.frozen_dataset import INDEX, FrozenDataset
from ml_backend.training.restarting import TAKEN_OVER, Restart

from sessions import SESSION  # isort: skip

OLD = replace(SESSION, id="old", state=SessionState.STOPPED)
NEW = replace(SESSION, id="new", restarted_from="old")
BEGAN = Component(
    name="nuclei-1", architecture="residual-unet", sha256="00", path="/gone", licence="CC0-1.0"
)

BASE = resolve_component("nuclei-1", models_dir=Path("/nowhere"), cuda=False)


class Site:
    """Two sessions with their folders, and what may be left of the first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.old: Session | None = OLD
        self.version: Version | None = None
        self.fails: Exception | None = None
        for name in ("old", "new"):
            (folder / name).mkdir()

    def settle_dataset(self) -> None:
        """Write the index of a dataset of one image as the first session left it."""
        dataset = self.folder / "old" / DATASET
        dataset.mkdir()
        (dataset / "1-1-pixels.npy").write_bytes(b"pixels")
        (dataset / "1-1-labels.npy").write_bytes(b"labels")
        index = {
            "format": 2,
            "start": vars(BEGAN),
            "images": [{"files": ["1-1-pixels.npy", "1-1-labels.npy"]}],
        }
        (dataset / INDEX).write_text(json.dumps(index))

    def restart(self) -> Restart:
        def write_checkpoint(old: Session, source: Path, start: Component, target: Path) -> None:
            assert (old, start) == (self.old, BEGAN)
            if self.fails is not None:
                raise self.fails
            target.write_bytes(b"from " + source.read_bytes())

        return Restart(
            NEW,
            self.folder / "new",
            find_session=lambda session_id: self.old if session_id == "old" else None,
            find_version=lambda _: self.version,
            folder_of=lambda session_id: self.folder / session_id,
            write_checkpoint=write_checkpoint,
            base=BASE,
        )

    def publish(self, content: bytes = b"weights") -> Component:
        """Give the first session a version."""
        path = self.folder / "weights.safetensors"
        path.write_bytes(content)
        sha256 = hashlib.sha256(b"weights").hexdigest()
        component = replace(BEGAN, name="nuclei-1-d1-v1", sha256=sha256, path=str(path))
        self.version = Version(
            project=OLD.project,
            name="nuclei-1-d1-v1",
            state=VersionState.CANDIDATE,
            controls=("masks",),
            component=component,
            session_id="old",
            parent="nuclei-1",
            created_at=0,
            metrics={},
        )
        return component


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_it_starts_from_the_version_that_the_other_one_made(site: Site) -> None:
    component = site.publish()
    site.settle_dataset()
    (site.folder / "old" / BEST).write_bytes(b"best")

    assert site.restart().start() == component
    assert not (site.folder / "new" / TAKEN_OVER).exists()
    assert FrozenDataset(site.folder / "new" / DATASET).start() == component


@pytest.mark.parametrize(
    ("name", "expected"), [(BEST, b"left"), (CHECKPOINT, b"from left")], ids=["best", "checkpoint"]
)
def test_without_a_version_it_starts_from_what_lies_in_the_folder(
    site: Site, name: str, expected: bytes
) -> None:
    site.settle_dataset()
    (site.folder / "old" / name).write_bytes(b"left")

    start = site.restart().start()

    assert Path(start.path).read_bytes() == expected
    assert Path(start.path).is_relative_to(site.folder / "new")
    assert start.sha256 == hashlib.sha256(expected).hexdigest()
    assert (start.name, start.licence) == (BEGAN.name, BEGAN.licence)


def test_the_other_session_can_be_deleted_then(site: Site) -> None:
    site.settle_dataset()
    (site.folder / "old" / BEST).write_bytes(b"best")
    start = site.restart().start()

    shutil.rmtree(site.folder / "old")
    site.old = None

    assert site.restart().start() == start
    assert Path(start.path).read_bytes() == b"best"
    taken = site.folder / "new" / DATASET
    assert (taken / "1-1-pixels.npy").read_bytes() == b"pixels"
    assert FrozenDataset(taken).start() == start


def test_the_best_counts_more_than_the_last(site: Site) -> None:
    site.settle_dataset()
    (site.folder / "old" / BEST).write_bytes(b"best")
    (site.folder / "old" / CHECKPOINT).write_bytes(b"last")

    assert Path(site.restart().start().path).read_bytes() == b"best"


def test_weights_are_taken_also_after_what_they_were_learned_from_was_removed(site: Site) -> None:
    shutil.copy(BASE.path, site.folder / "old" / BEST)

    start = site.restart().start()

    assert (start.name, start.sha256) == (BASE.name, BASE.sha256)
    assert Path(start.path).is_relative_to(site.folder / "new")
    assert not (site.folder / "new" / DATASET).exists()


def test_weights_of_another_kind_of_network_are_not(site: Site) -> None:
    (site.folder / "old" / BEST).write_bytes(b"no weights")

    with pytest.raises(TrainingError, match="left no checkpoint"):
        site.restart().start()


def test_its_own_dataset_is_left_alone(site: Site) -> None:
    site.publish()
    site.settle_dataset()
    own = site.folder / "new" / DATASET
    own.mkdir()

    site.restart().start()

    assert list(own.iterdir()) == []


def test_a_session_that_is_gone_is_a_sentence(site: Site) -> None:
    site.old = None

    with pytest.raises(TrainingError, match=r"Session old, which .* was deleted"):
        site.restart().start()


def test_a_folder_without_anything_is_a_sentence(site: Site) -> None:
    with pytest.raises(TrainingError, match="left no checkpoint"):
        site.restart().start()
    site.settle_dataset()
    site.fails = CheckpointInvalid("It is not there.")
    with pytest.raises(TrainingError, match="left no checkpoint"):
        site.restart().start()
    assert not (site.folder / "new" / TAKEN_OVER).exists()


@pytest.mark.parametrize("content", [b"others", None])
def test_a_version_that_is_damaged_or_gone_is_a_sentence(site: Site, content: bytes | None) -> None:
    site.publish(content or b"weights")
    if content is None:
        (site.folder / "weights.safetensors").unlink()

    with pytest.raises(TrainingError, match="nuclei-1-d1-v1 of session old is no longer"):
        site.restart().start()
