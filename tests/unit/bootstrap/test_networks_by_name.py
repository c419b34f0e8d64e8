"""From the name of a model to the network, in the order in which names are looked for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ml_backend.bootstrap.networks import records_for, resolver
from ml_backend.bootstrap.records import open_database, prepare_records
from ml_backend.domain import CLASSIFIER, Component, ProjectKey
from ml_backend.engines.catalogue import resolve_component
from ml_backend.errors import CheckpointInvalid, ModelError, ModelNotFound
from ml_backend.learning import SessionState, TrainingParameters, Trigger, Version, VersionState
from ml_backend.settings import Settings
from ml_backend.store.database import Database
from ml_backend.store.sessions import Sessions
from ml_backend.store.versions import Versions

PROJECT = ProjectKey(origin="http://ls.example", project_id=3, created_at=9)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", cellpose_local_models_path=tmp_path / "cellpose")


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    prepare_records(settings)
    database = open_database(settings)
    yield database
    database.close()


@pytest.fixture
def weights(tmp_path: Path) -> Component:
    """Return a network in a file of its own."""
    built_in = resolve_component("nuclei-1", models_dir=tmp_path, cuda=False)
    path = tmp_path / "weights.safetensors"
    shutil.copyfile(built_in.path, path)
    return replace(built_in, name="mine", path=str(path), diameter=21.0)


def keep(database: Database, component: Component, name: str = "mine") -> None:
    """Record a version."""
    Versions(database).add(
        Version(
            project=PROJECT,
            name=name,
            state=VersionState.CANDIDATE,
            controls=("cells",),
            component=component,
            session_id=None,
            parent="nuclei-1",
            created_at=1.0,
            metrics={},
        )
    )


def test_a_version_and_its_session_are_names_like_the_built_in_ones(
    settings: Settings, database: Database, weights: Component
) -> None:
    keep(database, weights)
    sessions = Sessions(database)
    asked = sessions.request(
        PROJECT, controls=("cells",), trigger=Trigger.PERSON, parameters=TrainingParameters()
    )
    lease = sessions.claim(asked.id, owner="trainer", lease_s=60)
    assert lease is not None
    sessions.finish(lease, SessionState.COMPLETED, message="", version="mine")
    resolve = resolver(settings, "cpu", database)

    assert resolve("mine") == resolve("3/mine") == resolve(asked.id[:10]) == weights
    assert resolve("auto").name == resolve("nuclei-1").name == "nuclei-1"
    assert resolve(weights.path).path == weights.path


def test_a_built_in_network_comes_before_a_version_of_its_name(
    settings: Settings, database: Database, weights: Component
) -> None:
    keep(database, weights, "nuclei-1")

    assert resolver(settings, "cpu", database)("nuclei-1").path != weights.path


def test_weights_that_were_replaced_are_refused(
    settings: Settings, database: Database, weights: Component
) -> None:
    keep(database, weights)
    Path(weights.path).write_bytes(b"something else")

    with pytest.raises(CheckpointInvalid, match="damaged or was replaced"):
        resolver(settings, "cpu", database)("mine")


def test_weights_that_are_gone_are_refused(
    settings: Settings, database: Database, weights: Component
) -> None:
    keep(database, weights)
    Path(weights.path).unlink()

    with pytest.raises(ModelNotFound, match="cannot be read"):
        resolver(settings, "cpu", database)("mine")


def test_what_answers_for_choices_is_no_network(
    settings: Settings, database: Database, weights: Component
) -> None:
    keep(database, replace(weights, architecture=CLASSIFIER))

    with pytest.raises(ModelError, match="finds no masks"):
        resolver(settings, "cpu", database)("mine")


def test_an_unknown_name_says_what_there_is(
    settings: Settings, database: Database, weights: Component
) -> None:
    keep(database, weights)

    with pytest.raises(ModelNotFound, match=r"nuclei-1, .*cpsam_v2.*, mine"):
        resolver(settings, "cpu", database)("yours")


def test_records_are_read_only_where_they_may_know_more(
    settings: Settings, weights: Component
) -> None:
    assert records_for(settings, "mine") is None  # nothing was ever recorded, and nothing is made
    assert not settings.data_dir.exists()

    prepare_records(settings)

    assert records_for(settings, "mine") is not None
    for name in ("auto", "nuclei-1", "cpsam", weights.path):
        assert records_for(settings, name) is None
