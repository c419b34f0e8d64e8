"""What finding, lending and deleting models asks of the records, on every database."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ml_backend.learning import TrainingParameters, Trigger
from ml_backend.store.components import Components
from ml_backend.store.database import Database
from ml_backend.store.releases import DEFAULT_PROJECT, Releases
from ml_backend.store.sessions import Sessions
from tests.contracts.learning_records import OTHER_PROJECT, PROJECT, component


def test_what_every_project_serves_is_read_at_once(database: Database) -> None:
    releases = Releases(database)
    expected = {}
    for number, project in enumerate((PROJECT, OTHER_PROJECT)):
        for name in ("old", "new"):
            made = releases.ensure(
                project,
                components={"cells": component(f"{name}-{number}")},
                canonical_config={},
                label_config="<View/>",
                revision="1",
            )
            releases.activate(project, made.version)
        expected[project] = made
    never_served = replace(PROJECT, project_id=9)
    releases.ensure(never_served, components={}, canonical_config={}, label_config="", revision="1")

    assert releases.all_active() == expected
    default = releases.record_default(component("base"), revision="1")
    assert releases.all_active() == {**expected, DEFAULT_PROJECT: default}


def test_a_file_that_must_not_be_used_is_forgotten_under_every_name(database: Database) -> None:
    components = Components(database)
    gone, stays = component("gone"), component("stays")
    for name in ("gone", "3/gone", "0123456789abcdef"):
        components.record(name, gone, device="cpu")
    components.record("stays", stays, device="cpu")

    components.forget_file(gone.path)

    assert [components.resolved(name) for name in ("gone", "3/gone")] == [None, None]
    assert components.resolved("stays") == stays
    assert sorted(components.wanted()) == ["0123456789abcdef", "3/gone", "gone"]


def test_sessions_are_found_by_how_their_ids_begin(database: Database) -> None:
    sessions = Sessions(database)
    ids = sorted(
        sessions.request(
            replace(PROJECT, project_id=number),
            controls=["cells"],
            trigger=Trigger.PERSON,
            parameters=TrainingParameters(),
        ).id
        for number in range(1, 4)
    )

    assert [one.id for one in sessions.beginning_with("", limit=2)] == ids[:2]
    for session_id in ids:
        (found,) = sessions.beginning_with(session_id[:12])
        assert found.id == session_id


@pytest.mark.parametrize("prefix", ["%", "_", "\\", "zz", "'"])
def test_nothing_in_a_beginning_is_a_wildcard(database: Database, prefix: str) -> None:
    sessions = Sessions(database)
    sessions.request(
        PROJECT, controls=["cells"], trigger=Trigger.PERSON, parameters=TrainingParameters()
    )

    assert sessions.beginning_with(prefix) == []
