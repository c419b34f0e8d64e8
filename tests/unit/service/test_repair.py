"""When Label Studio is looked at, and how often when it does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ml_backend.domain import Component, ProjectKey
from ml_backend.errors import LabelStudioError
from ml_backend.service.repair import EVERY_S, Repairs
from ml_backend.store.database import Database
from ml_backend.store.events import Events
from ml_backend.store.project_updates import ProjectUpdates
from ml_backend.store.projects import Projects
from ml_backend.store.releases import Releases
from ml_backend.store.versions import Versions
from tests.fake_rows import FakeRows
from tests.fakes import ManualClock

PROJECT = ProjectKey(origin="http://ls.example", project_id=1, created_at=5)
COMPONENT = Component(
    name="cells-1", architecture="residual-unet", sha256="0" * 64, path="", licence="CC0-1.0"
)


class Watch:
    """A Label Studio that is looked at, by a clock that a test moves."""

    def __init__(self, database: Database) -> None:
        self.clock = ManualClock()
        projects, releases = Projects(database), Releases(database)
        projects.record(PROJECT, hostname=None, access_token=None, label_config="")
        self.served = releases.ensure(
            PROJECT,
            components={"cells": COMPONENT},
            canonical_config={},
            label_config="",
            revision="1",
        ).version
        releases.activate(PROJECT, self.served)
        self.rows = FakeRows(key=PROJECT, version=self.served, setup=lambda url: self.served)
        self.looks = 0
        self.events = Events(database)
        self.repairs = Repairs(
            projects,
            releases,
            Versions(database),
            ProjectUpdates(database),
            self.way,
            clock=self.clock,
        )
        self.repairs.look()  # at the start

    def way(self, key: ProjectKey) -> FakeRows:
        self.looks += 1
        return self.rows

    def lose_the_title(self) -> None:
        """Do what a page that loaded meanwhile does."""
        self.rows.rows = [replace(self.rows.rows[0], title="cells-0-99999999")]

    def looks_within(self, seconds: int) -> int:
        before = self.looks
        for _ in range(seconds):
            self.clock.forward(1)
            self.repairs.look()
        return self.looks - before


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    database.migrate()
    yield Watch(database)
    database.close()


def test_every_project_is_looked_at_once_a_minute(watch: Watch) -> None:
    assert watch.looks_within(10 * int(EVERY_S)) == 10
    assert watch.rows.asked == []


def test_a_swap_is_followed_by_several_looks(watch: Watch) -> None:
    watch.looks_within(30)
    watch.repairs.follow_swap(PROJECT)

    assert watch.looks_within(50) >= 5


def test_a_title_that_is_lost_after_a_swap_is_back_within_seconds(watch: Watch) -> None:
    watch.repairs.follow_swap(PROJECT)
    watch.repairs.look()
    watch.lose_the_title()

    watch.looks_within(3)

    assert watch.rows.shown == (watch.served, watch.served)


def test_what_was_repaired_is_looked_at_again_soon(watch: Watch) -> None:
    watch.lose_the_title()
    watch.looks_within(int(EVERY_S))
    assert watch.rows.shown[0] == watch.served

    watch.lose_the_title()
    watch.looks_within(3)

    assert watch.rows.shown[0] == watch.served


def test_a_persons_change_of_the_project_is_looked_at_at_once(watch: Watch) -> None:
    watch.looks_within(2)
    watch.rows.predictions = [(1, watch.served)]
    watch.rows.info = replace(watch.rows.info, model_version="")
    watch.events.record(action="PROJECT_UPDATED", payload=b"{}", project_id=1)

    watch.looks_within(3)

    assert watch.rows.info.model_version == watch.served


def test_a_label_studio_that_refuses_is_asked_less_and_less(watch: Watch) -> None:
    watch.rows.failures = [LabelStudioError("no")] * 100
    first, later = watch.looks_within(300), watch.looks_within(1200)

    assert first <= 4
    assert later <= 5
    watch.rows.failures.clear()
    watch.lose_the_title()
    watch.looks_within(301)
    assert watch.rows.shown[0] == watch.served
