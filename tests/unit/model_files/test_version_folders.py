"""Version folders with the weights of the network that is shipped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_backend.domain import Component, ProjectKey
from ml_backend.engines.catalogue import built_in_networks, resolve_component
from ml_backend.errors import CheckpointInvalid
from ml_backend.model_files.version_folders import Publication, Publisher, project_slug, slug

PROJECT = ProjectKey(origin="http://localhost:8080/ls", project_id=3, created_at=1_800_000_000)
NAME = "nuclei-1-p3-v2"


@pytest.fixture(scope="module")
def parent() -> Component:
    return resolve_component("nuclei-1", models_dir=Path("/nowhere"), cuda=False)


def publication(parent: Component, session: str = "s1") -> Publication:
    return Publication(
        name=NAME,
        session_id=session,
        weights=built_in_networks()[0].path,
        parent=parent,
        architecture=parent.architecture,
        licence="CC0-1.0",
        diameter=31.5,
        facts={"metrics": {"mean": 0.5}, "name": "never replaces ours"},
    )


def test_a_version_is_a_component_with_the_size_of_its_objects(
    tmp_path: Path, parent: Component
) -> None:
    published = Publisher(tmp_path).publish(PROJECT, publication(parent))

    assert published.name == NAME
    assert published.architecture == parent.architecture
    assert published.sha256 == parent.sha256
    assert published.diameter == 31.5
    assert published.licence == "CC0-1.0"
    assert Path(published.path).is_relative_to(tmp_path)


def test_the_manifest_says_where_the_version_comes_from(tmp_path: Path, parent: Component) -> None:
    publisher = Publisher(tmp_path)
    publisher.publish(PROJECT, publication(parent))

    text = (publisher.folder(PROJECT, NAME) / "manifest.json").read_text()
    manifest = json.loads(text)

    assert manifest["session"] == "s1"
    assert manifest["parent"] == {
        "name": "nuclei-1",
        "sha256": parent.sha256,
        "path": parent.path,
    }
    assert manifest["metrics"] == {"mean": 0.5}
    assert manifest["name"] == NAME


def test_publishing_again_finds_the_version_and_makes_no_second(
    tmp_path: Path, parent: Component
) -> None:
    publisher = Publisher(tmp_path)

    first = publisher.publish(PROJECT, publication(parent))
    second = publisher.publish(PROJECT, publication(parent))

    assert first == second
    assert len(list(publisher.folder(PROJECT, NAME).parent.iterdir())) == 1


def test_the_name_of_another_session_is_refused(tmp_path: Path, parent: Component) -> None:
    publisher = Publisher(tmp_path)
    first = publisher.publish(PROJECT, publication(parent))

    with pytest.raises(FileExistsError):
        publisher.publish(PROJECT, publication(parent, session="s2"))

    assert publisher.publish(PROJECT, publication(parent)) == first


def test_a_folder_whose_weights_are_damaged_is_never_handed_out(
    tmp_path: Path, parent: Component
) -> None:
    publisher = Publisher(tmp_path)
    published = publisher.publish(PROJECT, publication(parent))
    weights = Path(published.path)
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)

    with pytest.raises(CheckpointInvalid):
        publisher.publish(PROJECT, publication(parent))


def test_weights_that_cannot_be_read_leave_no_folder(tmp_path: Path, parent: Component) -> None:
    publisher = Publisher(tmp_path)
    missing = replace(publication(parent), weights=tmp_path / "missing")

    with pytest.raises(FileNotFoundError):
        publisher.publish(PROJECT, missing)

    assert list(publisher.folder(PROJECT, NAME).parent.iterdir()) == []


def test_projects_never_share_a_folder() -> None:
    keys = [
        PROJECT,
        replace(PROJECT, created_at=1_800_000_001),
        replace(PROJECT, origin="https://localhost:8080/ls"),
        replace(PROJECT, origin="http://localhost:8080-ls"),
    ]

    assert len({project_slug(key) for key in keys}) == len(keys)
    assert project_slug(PROJECT).startswith("localhost-8080-ls-3-")


@given(st.text(max_size=300))
def test_a_slug_is_a_safe_name_for_any_file_system(text: str) -> None:
    made = slug(text)

    assert 0 < len(made) <= 40
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert made[0] != "-" != made[-1]
