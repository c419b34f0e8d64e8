"""What people may do with versions, and what they are told instead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ml_backend.bootstrap.models import open_version_desk
from ml_backend.domain import Component, ProjectKey
from ml_backend.errors import BadRequest, ConfigError, Conflict, NotFound, StoreError
from ml_backend.learning import UPLOADS, Origin, Version, VersionState
from ml_backend.settings import Settings
from ml_backend.store.activation_rows import Serving
from ml_backend.store.database import Database
from ml_backend.store.projects import Projects
from ml_backend.store.releases import Releases
from ml_backend.store.versions import Versions
from tests.fakes import ManualClock

PROJECT = ProjectKey(origin="http://ls.example", project_id=1, created_at=5)


class Office:
    """A desk on real records, and the engine's part played by hand."""

    def __init__(self, database: Database) -> None:
        self.clock = ManualClock()
        self.versions, self.releases = Versions(database, clock=self.clock), Releases(database)
        self.projects = Projects(database)
        self.desk = replace(open_version_desk(Settings(), database), versions=self.versions)

    def publish(self, name: str, state: VersionState = VersionState.CANDIDATE) -> Component:
        self.clock.forward(1)
        component = Component(
            name=name, architecture="residual-unet", sha256=name * 8, path="", licence="CC0-1.0"
        )
        self.versions.add(
            Version(
                project=PROJECT,
                name=name,
                state=state,
                controls=("cells", "nuclei"),
                component=component,
                session_id=None,
                parent="base",
                created_at=self.clock(),
                metrics={},
                message="Its file is damaged." if state is VersionState.REFUSED else None,
            )
        )
        return component

    def carry_out(self) -> None:
        """Do what an engine does with the oldest open activation."""
        claimed = self.versions.claim(self.versions.due()[0].id, "engine", 30)
        assert claimed is not None
        release = self.releases.ensure(
            PROJECT,
            components=claimed.components,
            canonical_config={},
            label_config="",
            revision="1",
        )
        overrides = {
            control: Serving(component=one, base_requested="auto", version_name=one.name)
            for control, one in claimed.components.items()
        }
        self.versions.switch(claimed, overrides=overrides, release_version=release.version)


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    database.migrate()
    yield Office(database)
    database.close()


def test_the_newest_version_is_listed_first_with_what_it_serves(office: Office) -> None:
    office.publish("one")
    office.publish("two")
    office.desk.activate(PROJECT, "one", by="Ada")
    office.carry_out()

    listed = office.desk.list(PROJECT)

    assert [item.version.name for item in listed.versions] == ["two", "one"]
    assert [item.serving for item in listed.versions] == [(), ("cells", "nuclei")]
    assert str(listed.release).startswith("one-")
    assert listed.activations[0].reason == "Ada activated one"


def test_an_unknown_version_is_answered_with_the_known_ones(office: Office) -> None:
    office.publish("one")

    with pytest.raises(NotFound, match="it has: one"):
        office.desk.activate(PROJECT, "tow", by="Ada")


@pytest.mark.parametrize("state", [VersionState.REFUSED, VersionState.ARCHIVED])
def test_what_cannot_be_served_is_not_asked_for(office: Office, state: VersionState) -> None:
    office.publish("one", state)

    with pytest.raises(Conflict):
        office.desk.activate(PROJECT, "one", by="Ada")

    assert office.versions.history(PROJECT) == []


def test_there_is_nothing_to_go_back_to_at_first(office: Office) -> None:
    with pytest.raises(Conflict):
        office.desk.rollback(PROJECT, by="Ada")
    with pytest.raises(Conflict):
        office.desk.activate_base(PROJECT, by="Ada")


def test_the_base_network_is_one_step_away(office: Office) -> None:
    for name in ("one", "two"):
        office.publish(name)
        office.desk.activate(PROJECT, name, by="Ada")
        office.carry_out()

    asked = office.desk.activate_base(PROJECT, by="Ada")
    office.carry_out()

    assert asked.removed == ("cells", "nuclei")
    assert office.versions.serving(PROJECT) == {}
    assert office.desk.activation(PROJECT, asked.id).finished_at is not None


def test_what_is_served_or_about_to_be_is_not_put_away(office: Office) -> None:
    office.publish("one")
    office.desk.activate(PROJECT, "one", by="Ada")
    with pytest.raises(Conflict):
        office.desk.archive(PROJECT, "one")
    office.carry_out()
    with pytest.raises(Conflict):
        office.desk.archive(PROJECT, "one")

    office.desk.rollback(PROJECT, by="Ada")
    office.carry_out()
    office.desk.archive(PROJECT, "one")

    assert office.desk.get(PROJECT, "one").state is VersionState.ARCHIVED


# Models from elsewhere

CONFIG = (
    '<View><Image name="image" value="$image"/>'
    '<PolygonLabels name="cells" toName="image"><Label value="Cell"/></PolygonLabels>'
    '<BrushLabels name="brush" toName="image" model_channels="1"><Label value="Cell"/>'
    "</BrushLabels>"
    '<Choices name="kind" toName="image"><Choice value="a"/><Choice value="b"/></Choices></View>'
)
DATASET = ProjectKey(origin="dataset", project_id=4, created_at=7)


def elsewhere(office: Office, owner: ProjectKey, *, architecture: str = "residual-unet") -> None:
    """Keep a model of a dataset, of another project, or an uploaded one."""
    office.projects.record(PROJECT, hostname=None, access_token=None, label_config=CONFIG)
    component = Component(
        name="mine", architecture=architecture, sha256="m" * 64, path="/m", licence="CC0-1.0"
    )
    office.versions.add(
        Version(
            project=owner,
            name="mine",
            state=VersionState.CANDIDATE,
            controls=("masks",),
            component=component,
            session_id=None,
            parent="base",
            created_at=office.clock(),
            metrics={},
        )
    )


@pytest.mark.parametrize("owner", [DATASET, UPLOADS])
def test_a_model_without_a_project_needs_one(office: Office, owner: ProjectKey) -> None:
    elsewhere(office, owner)

    with pytest.raises(BadRequest, match="name the project"):
        office.desk.activate(owner, "mine", by="Ada")


@pytest.mark.parametrize("owner", [DATASET, UPLOADS, replace(PROJECT, project_id=9)])
def test_it_goes_to_all_mask_controls_with_what_each_asks_for(
    office: Office, owner: ProjectKey
) -> None:
    elsewhere(office, owner)

    asked = office.desk.activate(owner, "mine", by="Ada", target=PROJECT)

    assert asked.project == PROJECT
    assert asked.origins == {
        "cells": Origin(version_name="mine", base_requested="auto", version_project=owner),
        "brush": Origin(
            version_name="mine", base_requested="auto (channels 1)", version_project=owner
        ),
    }
    assert office.versions.history(PROJECT) == [asked]


def test_it_goes_to_the_controls_that_are_named(office: Office) -> None:
    elsewhere(office, UPLOADS)

    asked = office.desk.activate(
        UPLOADS, "mine", by="Ada", target=PROJECT, controls=["brush", "brush"]
    )

    assert set(asked.components) == {"brush"}


@pytest.mark.parametrize("controls", [["kind"], ["cells", "other"], []])
def test_it_goes_to_no_other_controls(office: Office, controls: list[str]) -> None:
    elsewhere(office, UPLOADS)

    with pytest.raises(BadRequest, match="it has cells, brush"):
        office.desk.activate(UPLOADS, "mine", by="Ada", target=PROJECT, controls=controls)


def test_what_answers_for_choices_goes_nowhere_else(office: Office) -> None:
    elsewhere(office, replace(PROJECT, project_id=9), architecture="classifier")

    with pytest.raises(Conflict, match="classes of its own"):
        office.desk.activate(replace(PROJECT, project_id=9), "mine", by="Ada", target=PROJECT)


def test_a_project_without_mask_controls_takes_no_network(office: Office) -> None:
    elsewhere(office, UPLOADS)
    config = '<View><Image name="image" value="$image"/></View>'
    office.projects.record(PROJECT, hostname=None, access_token=None, label_config=config)

    with pytest.raises((Conflict, ConfigError)):
        office.desk.activate(UPLOADS, "mine", by="Ada", target=PROJECT)


def test_a_project_that_nobody_introduced_takes_no_network(office: Office) -> None:
    elsewhere(office, UPLOADS)

    with pytest.raises(NotFound, match="not introduced"):
        office.desk.activate(UPLOADS, "mine", by="Ada", target=replace(PROJECT, project_id=9))


def test_a_version_can_be_kept_from_some_of_its_controls(office: Office) -> None:
    office.publish("one")

    asked = office.desk.activate(PROJECT, "one", by="Ada", controls=["nuclei"])

    assert set(asked.components) == {"nuclei"}
    assert asked.origins["nuclei"].version_project is None


def test_a_version_of_the_project_can_also_go_to_other_controls(office: Office) -> None:
    office.projects.record(PROJECT, hostname=None, access_token=None, label_config=CONFIG)
    office.publish("one")

    asked = office.desk.activate(PROJECT, "one", by="Ada", controls=["cells", "brush"])

    assert asked.origins["cells"] == Origin(version_name="one", base_requested=None)
    assert asked.origins["brush"].version_project == PROJECT


# Deleting


def test_a_version_whose_folder_is_gone_can_be_deleted(office: Office) -> None:
    office.publish("one")

    office.desk.delete(PROJECT, "one")

    assert office.versions.all(PROJECT) == []
    with pytest.raises(NotFound):
        office.desk.delete(PROJECT, "one")


def test_a_folder_that_cannot_be_removed_leaves_a_version_to_delete_again(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"sha256": "' + "one" * 8 + '"}')
    weights = str(folder / "weights.safetensors")
    office.versions.add(
        Version(
            project=PROJECT,
            name="one",
            state=VersionState.CANDIDATE,
            controls=("cells",),
            component=Component(
                name="one",
                architecture="residual-unet",
                sha256="one" * 8,
                path=weights,
                licence="CC0-1.0",
            ),
            session_id=None,
            parent="base",
            created_at=office.clock(),
            metrics={},
        )
    )

    def refuse(_folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("ml_backend.service.versions.remove_folder", refuse)
    with pytest.raises(StoreError, match="Permission denied"):
        office.desk.delete(PROJECT, "one")
    assert office.desk.get(PROJECT, "one").state is VersionState.ARCHIVED
    monkeypatch.undo()

    office.desk.delete(PROJECT, "one")
    assert not folder.exists()
