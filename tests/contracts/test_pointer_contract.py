"""The pointer of what is served never moves back, on every database."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ml_backend.domain import Component, ProjectKey, Release
from ml_backend.learning import ActivationState
from ml_backend.store.activation_rows import Serving
from ml_backend.store.database import Database
from ml_backend.store.events import Events
from ml_backend.store.project_updates import ProjectUpdates
from ml_backend.store.releases import Releases, release_version
from ml_backend.store.versions import Versions
from tests.fakes import ManualClock

PROJECT = ProjectKey(origin="http://ls.example", project_id=7, created_at=1_795_215_681)
BASE = Component(
    name="cells-1", architecture="residual-unet", sha256="0" * 64, path="", licence="CC0-1.0"
)
TRAINED = replace(BASE, name="cells-p7-v1", sha256="1" * 64)


def release_of(releases: Releases, component: Component) -> Release:
    return releases.ensure(
        PROJECT,
        components={"cells": component},
        canonical_config={},
        label_config="<View/>",
        revision="1",
    )


def test_a_pointer_that_nobody_moved_is_moved(database: Database) -> None:
    releases = Releases(database)
    first, second = release_of(releases, BASE), release_of(releases, TRAINED)
    assert releases.activate_after(PROJECT, first.version, None)

    moved = releases.activate_after(PROJECT, second.version, releases.pointer(PROJECT))

    assert moved
    assert releases.active(PROJECT) == second


def test_a_pointer_that_a_swap_moved_meanwhile_stays(database: Database) -> None:
    clock = ManualClock()
    releases, versions = Releases(database, clock=clock), Versions(database, clock=clock)
    old, new = release_of(releases, BASE), release_of(releases, TRAINED)
    releases.activate(PROJECT, old.version)
    seen = releases.pointer(PROJECT)
    versions.request(PROJECT, components={"cells": TRAINED}, reason="a test")
    claimed = versions.claim(versions.due()[0].id, "engine", 30)
    assert claimed is not None
    clock.forward(1)
    versions.switch(
        claimed,
        overrides={"cells": Serving(component=TRAINED, base_requested="auto", version_name="v1")},
        release_version=new.version,
    )

    same = releases.activate_after(PROJECT, old.version, seen)

    assert not same
    assert releases.active(PROJECT) == new
    assert versions.history(PROJECT)[0].state is ActivationState.DONE


def test_activating_what_is_active_writes_nothing(database: Database) -> None:
    clock = ManualClock()
    releases = Releases(database, clock=clock)
    version = release_of(releases, BASE).version
    releases.activate(PROJECT, version)
    before = releases.pointer(PROJECT)
    clock.forward(60)

    assert releases.activate_after(PROJECT, version, before)
    assert releases.pointer(PROJECT) == before


def test_of_many_who_saw_the_same_pointer_one_moves_it(database: Database) -> None:
    clock = ManualClock()
    releases = Releases(database, clock=clock)
    first = release_of(releases, BASE)
    releases.activate(PROJECT, first.version)
    seen = releases.pointer(PROJECT)
    others = [
        release_of(releases, replace(BASE, sha256=str(number) * 64)) for number in range(1, 9)
    ]
    clock.forward(1)
    together = threading.Barrier(len(others))

    def move(release: Release) -> bool:
        together.wait(timeout=20)
        return releases.activate_after(PROJECT, release.version, seen)

    with ThreadPoolExecutor(len(others)) as pool:
        moved = list(pool.map(move, others))

    assert sum(moved) == 1
    assert releases.active(PROJECT) == others[moved.index(True)]


def test_the_size_that_a_network_was_trained_on_is_part_of_the_version() -> None:
    sized = replace(TRAINED, diameter=30.0)

    versions = {
        release_version({"cells": component}, {}, "1")
        for component in (TRAINED, sized, replace(TRAINED, diameter=31.0))
    }

    assert len(versions) == 3


def test_changes_of_projects_are_told_once_and_from_now_on(database: Database) -> None:
    events, updates = Events(database), ProjectUpdates(database)
    events.record(action="PROJECT_UPDATED", payload=b"old", project_id=1)
    at_the_start = updates.new()
    events.record(action="PROJECT_UPDATED", payload=b"1", project_id=7)
    events.record(action="PROJECT_UPDATED", payload=b"2", project_id=7)
    events.record(action="TASKS_CREATED", payload=b"3", project_id=8)
    events.record(action="PROJECT_UPDATED", payload=b"4")

    assert at_the_start == set()
    assert updates.new() == {7}
    assert updates.new() == set()
