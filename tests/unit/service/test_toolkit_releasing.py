"""A project's release follows the version that its toolkit class has set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ml_backend.domain import TOOLKIT
from ml_backend.errors import EngineUnavailable, ModelError
from ml_backend.service.release_watch import ReleaseWatch
from ml_backend.service.toolkit_releasing import MODEL_VERSION, component_of
from ml_backend.store.toolkit_values import ToolkitValues
from tests.unit.service.toolkit_bench import (
    CONFIG,
    KEY,
    REQUESTED,
    SOURCE,
    ToolkitBench,
    open_toolkit_bench,
)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[ToolkitBench]:
    with open_toolkit_bench(tmp_path) as opened:
        yield opened


def test_a_class_is_named_with_its_own_version() -> None:
    first, named = component_of(SOURCE, None), component_of(SOURCE, "v 2/ä")
    assert (first.name, named.name) == ("Mood-0.0.1", "Mood-v 2/ä")
    assert first.architecture == named.architecture == TOOLKIT
    others = [component_of(replace(SOURCE, sha256="6" * 64), None), component_of(SOURCE, "0.0.2")]
    assert len({one.sha256 for one in (first, named, *others)}) == 4


def test_before_an_engine_has_imported_it_nothing_can_be_served(bench: ToolkitBench) -> None:
    with pytest.raises(EngineUnavailable, match="try again"):
        bench.releasing.activate(KEY, CONFIG)
    bench.releasing.components.record_problem(REQUESTED, "It cannot be imported.")
    with pytest.raises(ModelError, match="cannot be imported"):
        bench.releasing.activate(KEY, CONFIG)


def test_the_same_class_and_config_are_the_same_version(bench: ToolkitBench) -> None:
    version = bench.introduce().version
    assert version.startswith("Mood-0.0.1-")
    assert bench.introduce().version == version
    active = bench.releasing.releases.active(KEY)
    assert active is not None
    assert (active.version, active.project) == (version, KEY)


def test_another_config_or_version_is_another_release(bench: ToolkitBench) -> None:
    versions = [bench.introduce().version]
    versions.append(bench.releasing.activate(KEY, f"{CONFIG}<!-- new -->").release.version)
    bench.values.set(KEY, MODEL_VERSION, "9")
    versions.append(bench.releasing.activate(KEY, CONFIG).release.version)
    assert len(set(versions)) == 3
    assert versions[2].startswith("Mood-9-")


def test_refreshing_serves_what_the_class_has_set(bench: ToolkitBench) -> None:
    release = bench.introduce()
    assert bench.releasing.refresh(KEY, release).version == release.version
    ToolkitValues(bench.database).set(KEY, MODEL_VERSION, "9")
    now = bench.releasing.refresh(KEY, release)
    assert now.version.startswith("Mood-9-")
    active = bench.releasing.releases.active(KEY)
    assert active is not None
    assert active.version == now.version


def test_refreshing_an_older_release_leaves_the_active_one(bench: ToolkitBench) -> None:
    old = bench.introduce()
    served = bench.releasing.activate(KEY, f"{CONFIG}<!-- new -->").release
    bench.values.set(KEY, MODEL_VERSION, "9")
    bench.releasing.refresh(KEY, old)
    active = bench.releasing.releases.active(KEY)
    assert active is not None
    assert active.version == served.version


def test_a_change_of_what_is_served_is_told_once(bench: ToolkitBench) -> None:
    told: list[object] = []
    release = bench.introduce()
    watch = ReleaseWatch(bench.projects, bench.releasing.releases, told.append)
    watch.look()
    bench.values.set(KEY, MODEL_VERSION, "9")
    bench.releasing.refresh(KEY, release)
    watch.look()
    watch.look()
    assert told == [KEY]
