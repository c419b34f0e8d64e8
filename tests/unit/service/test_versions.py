"""What people may do with versions, and what they are told instead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_backend.domain import Component, ProjectKey
from ml_backend.errors import Conflict, NotFound
from ml_backend.learning import Version, VersionState
from ml_backend.service.versions import VersionDesk
from ml_backend.store.activation_rows import Serving
from ml_backend.store.database import Database
from ml_backend.store.releases import Releases
from ml_backend.store.versions import Versions
from tests.fakes import ManualClock

PROJECT = ProjectKey(origin="http://ls.example", project_id=1, created_at=5)


class Office:
    """A desk on real records, and the engine's part played by hand."""

    def __init__(self, database: Database) -> None:
        self.clock = ManualClock()
        self.versions, self.releases = Versions(database, clock=self.clock), Releases(database)
        self.desk = VersionDesk(versions=self.versions, releases=self.releases)

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
