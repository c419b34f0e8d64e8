"""What `ml-backend models` changes, on records that sessions and engines have written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ml_backend.cli import app
from ml_backend.datasets import DatasetSource
from ml_backend.domain import Component, ProjectKey
from ml_backend.learning import ActivationState, Version, VersionState
from ml_backend.store.database import Database
from ml_backend.store.datasets import Datasets
from ml_backend.store.projects import Projects
from ml_backend.store.releases import Releases
from ml_backend.store.versions import Serving, Versions

PROJECT = ProjectKey(origin="http://ls.example", project_id=3, created_at=9)
OTHER = ProjectKey(origin="http://other.example", project_id=3, created_at=10)
Run = Callable[..., Result]


def component(name: str) -> Component:
    """Return a network."""
    return Component(
        name=name,
        architecture="residual-unet",
        sha256=name.encode().hex().ljust(64, "0"),
        path=f"/models/{name}",
        licence="CC0-1.0",
    )


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Database]:
    """Yield the records of a backend that project 3 is connected to."""
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    database.migrate()
    record_project(database, PROJECT)
    yield database
    database.close()


def record_project(database: Database, project: ProjectKey) -> None:
    """Connect a project."""
    Projects(database).record(project, hostname=None, access_token=None, label_config="<View/>")


@pytest.fixture
def versions(records: Database) -> Versions:
    """Return the rows."""
    return Versions(records)


@pytest.fixture
def run(tmp_path: Path, records: Database) -> Run:
    """Return what runs `ml-backend models` on the records."""
    environment = {"DATA_DIR": str(tmp_path), "COLUMNS": "40", "LOG_LEVEL": "ERROR"}

    def run(*arguments: str) -> Result:
        return CliRunner(env=environment).invoke(app, ["models", *arguments])

    return run


def trained(versions: Versions, name: str, **more: Any) -> Version:
    """Return a version that a session has made."""
    version = Version(
        **{
            "project": PROJECT,
            "name": name,
            "state": VersionState.CANDIDATE,
            "controls": ("cells",),
            "component": component(name),
            "session_id": "s",
            "parent": "nuclei-1",
            "created_at": 1.0,
            "metrics": {},
            **more,
        }
    )
    versions.add(version)
    return version


def serve(records: Database, versions: Versions) -> None:
    """Do what an engine does with the next activation."""
    (due,) = versions.due()
    activation = versions.claim(due.id, "engine", 60)
    assert activation is not None
    overrides = {
        control: Serving(component=network, base_requested="auto", version_name=network.name)
        for control, network in activation.components.items()
    }
    release = Releases(records).ensure(
        activation.project,
        components=dict(activation.components) or {"cells": component("nuclei-1")},
        canonical_config={},
        label_config="<View/>",
        revision="1",
    )
    versions.switch(
        activation, overrides=overrides, release_version=release.version, owner="engine"
    )


def test_models_are_listed_newest_first_with_what_became_of_them(
    run: Run, records: Database, versions: Versions
) -> None:
    numbers = {"candidate": {"mean": 0.5812}, "active": {"mean": 0.2}}
    trained(versions, "nuclei-1-p3-v1", created_at=1.0, metrics=numbers)
    trained(
        versions,
        "nuclei-1-p3-v2",
        created_at=2.0,
        message="It is kept as a candidate: [too little] better.",
    )
    run("activate", "nuclei-1-p3-v1")
    serve(records, versions)

    head, newest, oldest = run("list", "--project", "3").stdout.splitlines()

    assert head.split()[:3] == ["name", "kind", "licence"]
    assert newest.split()[0] == "nuclei-1-p3-v2"
    assert "[too little] better. (its weights are not on this machine)" in newest
    assert oldest.split()[0] == "nuclei-1-p3-v1"
    assert oldest.split()[3:9] == ["project", "3", "cells", "(3)", "0.200", "0.581"]
    assert "cells" not in newest


def test_an_activation_is_asked_for_and_shown_among_the_changes(
    run: Run, versions: Versions
) -> None:
    trained(versions, "v1")

    done = run("activate", "v1")

    (activation,) = versions.history(PROJECT)
    assert activation.state is ActivationState.REQUESTED
    assert activation.components == {"cells": component("v1")}
    assert f"change {activation.id} is asked for" in done.stdout
    assert "A person activated v1" in run("changes").stdout
    assert "A person activated v1" in run("changes", "--project", "3").stdout


def test_a_model_of_a_dataset_is_served_by_the_project_that_is_named(
    run: Run, records: Database, versions: Versions
) -> None:
    config = (
        '<View><Image name="image" value="$image"/><PolygonLabels name="cells" toName="image">'
        '<Label value="Cell"/></PolygonLabels><BrushLabels name="brush" toName="image">'
        '<Label value="Cell"/></BrushLabels></View>'
    )
    Projects(records).record(PROJECT, hostname=None, access_token=None, label_config=config)
    dataset = Datasets(records).register(DatasetSource(root="/data/nuclei"))
    trained(versions, "v1", project=dataset.key, controls=("masks",))

    nowhere = run("activate", "v1")
    everywhere = run("activate", "v1", "--project", "3")
    chosen = run("activate", "v1", "--project", "3", "--control", "brush")
    wrong = run("activate", "v1", "--project", "3", "--control", "other")

    assert "name the project" in nowhere.stderr
    assert (everywhere.exit_code, chosen.exit_code) == (0, 0), chosen.output
    assert "it has cells, brush" in wrong.stderr
    assert [set(one.components) for one in versions.history(PROJECT)] == [
        {"brush"},
        {"cells", "brush"},
    ]


def test_rollback_goes_back_step_by_step(run: Run, records: Database, versions: Versions) -> None:
    for name in ("v1", "v2"):
        trained(versions, name)
        run("activate", name)
        serve(records, versions)

    served = []
    for _ in range(2):
        assert run("rollback", "3").exit_code == 0
        serve(records, versions)
        served.append(
            {control: one.version_name for control, one in versions.serving(PROJECT).items()}
        )
    nothing_left = run("rollback", "3")

    assert served == [{"cells": "v1"}, {}]
    assert nothing_left.exit_code == 1
    assert "base network" in nothing_left.stderr


def test_rollback_goes_to_the_base_network_at_once_where_asked(
    run: Run, records: Database, versions: Versions
) -> None:
    for name in ("v1", "v2"):
        trained(versions, name)
        run("activate", name)
        serve(records, versions)

    run("rollback", "3", "--to-base")
    serve(records, versions)

    assert versions.serving(PROJECT) == {}


def test_a_name_that_two_projects_have_needs_the_project(
    run: Run, records: Database, versions: Versions
) -> None:
    record_project(records, OTHER)
    trained(versions, "v1")
    trained(versions, "v1", project=OTHER)

    ambiguous = run("activate", "v1")
    by_number = run("activate", "v1", "--of", "3")
    chosen = run("activate", "v1", "--of", str(OTHER))
    served_there = run("activate", "v1", "--project", str(PROJECT))

    assert str(PROJECT) in ambiguous.stderr
    assert str(OTHER) in by_number.stderr
    assert (ambiguous.exit_code, by_number.exit_code) == (1, 1)
    assert (chosen.exit_code, served_there.exit_code) == (0, 0)
    assert len(versions.history(OTHER)) == len(versions.history(PROJECT)) == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["activate", "v9"], "There is no model 'v9'"),
        (["activate", "nuclei-1"], "is built in"),
        (["activate", "broken"], "Its checksum is wrong."),
        (["activate", "v1", "--project", "8"], "There is no project '8'"),
        (["rollback", "8"], "There is no project '8'"),
        (["list", "--project", "8"], "There is no project '8'"),
        (["list", "--dataset", "x"], "There is no dataset 'x'"),
        (["changes", "--project", "8"], "There is no project '8'"),
        (["archive", "v9"], "There is no model 'v9'"),
        (["delete", "v9", "--yes"], "There is no model 'v9'"),
        (["delete", "cpsam", "--yes"], "is built in"),
        (["show", "v9"], "There is no model 'v9'"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    run: Run, versions: Versions, arguments: list[str], reason: str
) -> None:
    trained(versions, "broken", state=VersionState.REFUSED, message="Its checksum is wrong.")

    failed = run(*arguments)

    assert failed.exit_code == 1
    assert failed.stderr.startswith("error: ")
    assert reason in failed.stderr
    assert len(failed.stderr.splitlines()) == 1


def test_a_model_is_put_away_and_deleted_unless_it_is_served(
    run: Run, records: Database, versions: Versions
) -> None:
    trained(versions, "v1")
    trained(versions, "v2")
    run("activate", "v1")
    serve(records, versions)

    served = run("archive", "v1"), run("delete", "v1", "--yes")
    away = run("archive", "v2")
    not_sure = run("delete", "v2")
    gone = run("delete", "v2", "--yes")

    assert all("project 3 serves it for cells; roll back" in one.stderr for one in served)
    assert (away.exit_code, not_sure.exit_code, gone.exit_code) == (0, 1, 0)
    assert [one.name for one in versions.all(PROJECT)] == ["v1"]


def test_a_clean_up_without_a_way_to_label_studio_says_what_to_set(run: Run) -> None:
    failed = run("clean-up", "3")

    assert failed.exit_code == 78
    assert "LABEL_STUDIO_API_KEY" in failed.stderr
