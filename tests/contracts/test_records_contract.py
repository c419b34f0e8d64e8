"""What projects, components, releases and events promise on every database."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from ml_backend.domain import Component, ProjectKey
from ml_backend.errors import StoreError
from ml_backend.store.components import Components
from ml_backend.store.database import Database
from ml_backend.store.events import PRUNED_AT_ONCE, START_TRAINING, Events, EventState
from ml_backend.store.projects import Projects
from ml_backend.store.releases import DEFAULT_PROJECT, Releases
from ml_backend.store.schema import EventRow
from tests.fakes import ManualClock

PROJECT = ProjectKey(origin="http://ls.example", project_id=7, created_at=1_795_215_681)
COMPONENT = Component(
    name="cells-1",
    architecture="residual-unet",
    sha256="0" * 64,
    path="/models/cells-1.safetensors",
    licence="CC0-1.0",
)
INPUTS: dict[str, Any] = {
    "components": {"cells": COMPONENT},
    "canonical_config": {"controls": [{"name": "cells"}]},
    "label_config": "<View/>",
    "revision": "1",
}


class TestProjects:
    def test_a_project_is_found_by_what_label_studio_calls_it(self, database: Database) -> None:
        projects = Projects(database)
        projects.record(
            PROJECT, hostname="http://ls.example", access_token="token", label_config="<View/>"
        )

        found = projects.find("7.1795215681")

        assert found is not None
        assert found.key == PROJECT
        assert found.access_token == "token"
        assert "token" not in repr(found).replace("access_token", "")
        assert found == projects.get(PROJECT) == projects.get(str(PROJECT)) == projects.latest()

    @pytest.mark.parametrize(
        "name", ["", "7", "8.1795215681", "7.1", "x.y", "7.1795215681.3", "-7.1", "٧.1", "9" * 40]
    )
    def test_any_other_name_finds_nothing(self, database: Database, name: str) -> None:
        projects = Projects(database)
        projects.record(PROJECT, hostname=None, access_token=None, label_config="")

        assert projects.find(name) is None

    def test_of_two_servers_with_the_same_project_the_one_seen_last_is_meant(
        self, database: Database
    ) -> None:
        clock = ManualClock()
        projects = Projects(database, clock=clock)
        other = replace(PROJECT, origin="http://other.example")
        for key in (PROJECT, other, PROJECT):
            clock.forward(100)
            projects.record(key, hostname=key.origin, access_token=None, label_config="")

        found = projects.find("7.1795215681")

        assert found is not None
        assert found.key == PROJECT
        assert [project.key for project in projects.all()] == [PROJECT, other]

    def test_the_same_setup_again_is_written_once_a_minute_only(self, database: Database) -> None:
        clock = ManualClock()
        projects = Projects(database, clock=clock)
        seen = []
        for wait_s in (0, 1, 58, 2):
            clock.forward(wait_s)
            project = projects.record(PROJECT, hostname=None, access_token=None, label_config="")
            seen.append(project.last_seen)

        first, last = seen[0], clock.now
        assert seen == [first, first, first, last]

    def test_a_changed_label_config_is_written_at_once(self, database: Database) -> None:
        projects = Projects(database)
        projects.record(PROJECT, hostname=None, access_token=None, label_config="old")
        projects.record(
            PROJECT,
            hostname=None,
            access_token=None,
            label_config="new",
            label_config_error="unusable",
        )

        found = projects.get(PROJECT)

        assert found is not None
        assert (found.label_config, found.label_config_error) == ("new", "unusable")


class TestComponents:
    def test_what_a_model_resolved_to_is_there_for_all(self, database: Database) -> None:
        components = Components(database)
        components.record("auto", COMPONENT, device="cpu")

        resolution = components.resolution("auto")

        assert components.resolved("auto") == COMPONENT
        assert resolution is not None
        assert (resolution.device, resolution.wanted) == ("cpu", False)
        assert components.resolved("cpsam") is None

    def test_a_wanted_model_is_listed_until_an_engine_has_looked(self, database: Database) -> None:
        components = Components(database)
        for requested in ("cpsam", "gone.pt", "auto"):
            components.want(requested)

        components.record("cpsam", COMPONENT, device="cpu")
        components.want("cpsam")
        components.record_problem("gone.pt", "There is no such file.")

        problem = components.resolution("gone.pt")
        assert components.wanted() == ["auto"]
        assert problem is not None
        assert problem.problem == "There is no such file."
        assert components.resolved("gone.pt") is None

    def test_a_model_that_could_not_be_served_is_looked_for_again_after_a_while(
        self, database: Database
    ) -> None:
        clock = ManualClock()
        components = Components(database, clock=clock)
        components.record_problem("late.pt", "There is no such file.")

        at_once = components.want("late.pt")
        clock.forward(31)
        later = components.want("late.pt")

        assert at_once.problem == later.problem == "There is no such file."
        assert components.wanted() == ["late.pt"]

    def test_what_an_engine_finds_the_second_time_counts(self, database: Database) -> None:
        clock = ManualClock()
        components = Components(database, clock=clock)
        for requested in ("late.pt", "gone.pt"):
            components.record_problem(requested, "There is no such file.")
            clock.forward(31)
            components.want(requested)

        components.record("late.pt", COMPONENT, device="cpu")
        components.record_problem("gone.pt", "There is no such file.")

        assert components.want("late.pt").component == COMPONENT
        assert components.want("gone.pt").problem == "There is no such file."
        assert components.wanted() == []

    def test_an_engine_that_starts_has_everything_else_looked_at_again(
        self, database: Database
    ) -> None:
        components = Components(database)
        for requested in ("auto", "mine.pt"):
            components.record(requested, COMPONENT, device="cpu")
        components.record_problem("gone.pt", "There is no such file.")

        components.forget_others("auto")

        mine, gone = components.want("mine.pt"), components.want("gone.pt")
        assert components.resolved("auto") == COMPONENT
        assert (mine.component, mine.device, mine.problem) == (None, None, None)
        assert gone.problem == "There is no such file."
        assert sorted(components.wanted()) == ["gone.pt", "mine.pt"]

    def test_a_model_whose_file_changed_is_resolved_anew(self, database: Database) -> None:
        components = Components(database)
        for requested in ("auto", "mine.pt"):
            components.record(requested, COMPONENT, device="cpu")
        retrained = replace(COMPONENT, sha256="1" * 64)

        components.forget("mine.pt")
        forgotten = components.resolved("mine.pt")
        components.record("mine.pt", retrained, device="cpu")

        assert forgotten is None
        assert components.resolved("auto") == COMPONENT
        assert components.resolved("mine.pt") == retrained
        assert components.wanted() == []

    def test_a_later_start_replaces_what_was_found(self, database: Database) -> None:
        components = Components(database)
        components.record_problem("auto", "no")
        components.record("auto", COMPONENT, device="cpu")
        better = replace(COMPONENT, name="cpsam_v2", sha256="1" * 64)

        components.record("auto", better, device="cuda")

        assert components.resolved("auto") == better


class TestReleases:
    def test_the_same_inputs_give_the_same_version_in_every_project(
        self, database: Database
    ) -> None:
        releases = Releases(database)
        other = replace(PROJECT, project_id=8)

        made = [releases.ensure(project, **INPUTS) for project in (PROJECT, PROJECT, other)]

        assert len({release.version for release in made}) == 1
        assert made[0].version.startswith("cells-1-")
        assert releases.versions(PROJECT) == [made[0].version]
        assert releases.by_version(PROJECT, made[0].version) == made[0]

    @pytest.mark.parametrize(
        "change",
        [
            {"revision": "2"},
            {"canonical_config": {"controls": []}},
            {"components": {"cells": replace(COMPONENT, sha256="1" * 64)}},
            {"components": {"nuclei": COMPONENT}},
        ],
    )
    def test_anything_that_changes_predictions_makes_a_new_version(
        self, database: Database, change: dict[str, Any]
    ) -> None:
        releases = Releases(database)

        versions = {
            releases.ensure(PROJECT, **inputs).version for inputs in (INPUTS, {**INPUTS, **change})
        }

        assert len(versions) == 2

    @pytest.mark.parametrize(
        "change",
        [
            {"label_config": "<View />"},
            {"components": {"cells": replace(COMPONENT, path="/elsewhere")}},
        ],
    )
    def test_what_changes_no_prediction_makes_none(
        self, database: Database, change: dict[str, Any]
    ) -> None:
        releases = Releases(database)

        versions = {
            releases.ensure(PROJECT, **inputs).version for inputs in (INPUTS, {**INPUTS, **change})
        }

        assert len(versions) == 1

    def test_a_moved_weights_file_is_followed(self, database: Database) -> None:
        releases = Releases(database)
        moved = replace(COMPONENT, path="/elsewhere")
        version = releases.ensure(PROJECT, **INPUTS).version

        releases.ensure(PROJECT, **{**INPUTS, "components": {"cells": moved}})

        release = releases.by_version(PROJECT, version)
        assert release is not None
        assert release.components == {"cells": moved}

    def test_a_version_names_its_models_in_plain_characters(self, database: Database) -> None:
        odd = replace(COMPONENT, name="my model (µ).pt", sha256="1" * 64)

        release = Releases(database).ensure(
            PROJECT, **{**INPUTS, "components": {"a": odd, "b": COMPONENT, "c": COMPONENT}}
        )

        assert release.version.startswith("cells-1+my-model-.pt-")

    def test_twenty_threads_write_one_release(self, database: Database) -> None:
        releases = Releases(database)
        start = threading.Barrier(20)

        def set_up(_: int) -> str:
            start.wait()
            release = releases.ensure(PROJECT, **INPUTS)
            releases.activate(PROJECT, release.version)
            return release.version

        with ThreadPoolExecutor(20) as pool:
            versions = list(pool.map(set_up, range(20)))

        assert releases.versions(PROJECT) == [versions[0]]
        assert set(versions) == {versions[0]}

    def test_the_active_release_is_what_was_activated_last(self, database: Database) -> None:
        clock = ManualClock()
        releases = Releases(database, clock=clock)
        old = releases.ensure(PROJECT, **INPUTS)
        clock.forward(1)
        new = releases.ensure(PROJECT, **{**INPUTS, "revision": "2"})
        assert releases.active(PROJECT) is None

        releases.activate(PROJECT, new.version)
        releases.activate(PROJECT, old.version)

        assert releases.active(PROJECT) == old
        assert releases.versions(PROJECT) == [new.version, old.version]

    def test_a_release_of_another_project_cannot_be_activated(self, database: Database) -> None:
        releases = Releases(database)
        version = releases.ensure(PROJECT, **INPUTS).version

        with pytest.raises(StoreError, match="has no release"):
            releases.activate(replace(PROJECT, project_id=8), version)

    def test_the_default_release_says_that_the_model_is_resolved(self, database: Database) -> None:
        releases = Releases(database)

        release = releases.record_default(COMPONENT, revision="1")

        assert releases.record_default(COMPONENT, revision="1") == release
        assert releases.active(DEFAULT_PROJECT) == release


class TestEvents:
    def test_an_event_comes_back_as_it_came(self, database: Database) -> None:
        clock = ManualClock()
        events = Events(database, clock=clock)

        job = events.record(
            action="ANNOTATION_CREATED", payload=b'{"a": 1}', origin="http://ls", project_id=7
        )

        event = events.get(job)
        assert event is not None
        assert (event.action, event.payload) == ("ANNOTATION_CREATED", b'{"a": 1}')
        assert (event.origin, event.project_id) == ("http://ls", 7)
        assert (event.state, event.received_at) == (EventState.QUEUED, clock.now)
        assert events.get("unknown") is None

    def test_the_same_event_twice_is_recorded_once(self, database: Database) -> None:
        events = Events(database)
        start = threading.Barrier(8)

        def record(_: int) -> str:
            start.wait()
            return events.record(action="TASKS_CREATED", payload=b"{}", origin="http://ls")

        with ThreadPoolExecutor(8) as pool:
            jobs = set(pool.map(record, range(8)))

        other = events.record(action="TASKS_CREATED", payload=b"{}", origin="http://other")
        assert len(jobs) == 1
        assert [event.job for event in events.queued(limit=9)] == [*jobs, other]

    def test_the_button_counts_again_once_its_first_press_is_worked_through(
        self, database: Database
    ) -> None:
        events = Events(database)
        first = events.record(action=START_TRAINING, payload=b"{}")
        impatient = events.record(action=START_TRAINING, payload=b"{}")
        events.finish(first, EventState.FAILED, message="too few annotations")

        second = events.record(action=START_TRAINING, payload=b"{}")

        done = events.get(first)
        assert first == impatient != second
        assert done is not None
        assert (done.state, done.message) == (EventState.FAILED, "too few annotations")
        assert [event.job for event in events.queued(limit=9)] == [second]

    def test_a_setting_that_was_put_back_is_told_again(self, database: Database) -> None:
        events = Events(database)
        jobs = []
        for payload in (b"A", b"B", b"A"):
            jobs.append(events.record(action="PROJECT_UPDATED", payload=payload, project_id=7))
            events.finish(jobs[-1], EventState.DONE)

        assert len(set(jobs)) == 3

    def test_an_annotation_event_that_was_worked_through_does_not_come_back(
        self, database: Database
    ) -> None:
        events = Events(database)
        job = events.record(action="ANNOTATION_CREATED", payload=b"{}")
        events.finish(job, EventState.DONE)

        assert events.record(action="ANNOTATION_CREATED", payload=b"{}") == job
        assert events.queued(limit=9) == []

    def test_finishing_an_unknown_event_is_an_error(self, database: Database) -> None:
        with pytest.raises(StoreError, match="no event"):
            Events(database).finish("unknown", EventState.DONE)

    def test_processed_events_go_first_then_the_oldest(self, database: Database) -> None:
        events = Events(database)
        jobs = [events.record(action="A", payload=b"%d" % n) for n in range(5)]
        events.finish(jobs[4], EventState.DONE)

        dropped = Events(database, max_rows=3).prune()

        assert dropped == 2
        assert [event.job for event in events.queued(limit=9)] == jobs[1:4]

    def test_whether_any_event_waits_is_known(self, database: Database) -> None:
        events = Events(database)
        waits = [events.has_queued()]
        job = events.record(action="A", payload=b"{}")
        waits.append(events.has_queued())
        events.finish(job, EventState.DONE)

        assert [*waits, events.has_queued()] == [False, True, False]

    def test_the_table_stays_bounded_in_bytes_without_being_asked(self, database: Database) -> None:
        events = Events(database, max_bytes=2000)

        for number in range(128):
            incompressible = hashlib.sha512(b"%d" % number).digest()
            events.record(action="A", payload=incompressible)

        # roughly: it looks now and then, and drops what is far over
        assert 0 < kept_bytes(database) <= 2000 * 1.5
        events.prune()
        assert 0 < kept_bytes(database) <= 2000

    def test_recording_never_prunes_a_table_within_its_bounds(self, database: Database) -> None:
        events = Events(database)
        with statements_on(database) as statements:
            for number in range(130):
                events.record(action="A", payload=b"%d" % number)

        heavy = [one for one in statements if "DELETE" in one or "sum(" in one or "count(" in one]
        assert heavy == []

    def test_pruning_writes_nothing_within_the_bounds(self, database: Database) -> None:
        events = Events(database)
        events.record(action="A", payload=b"{}")
        with statements_on(database) as statements:
            assert events.prune() == 0

        assert not [one for one in statements if "DELETE" in one or "IMMEDIATE" in one]

    def test_pruning_drops_a_few_at_a_time(self, database: Database) -> None:
        events = Events(database)
        jobs = [events.record(action="A", payload=b"%d" % n) for n in range(2 * PRUNED_AT_ONCE + 9)]
        with statements_on(database) as statements:
            dropped = Events(database, max_rows=5).prune()

        assert dropped == len(jobs) - 5
        assert len([one for one in statements if one.startswith("DELETE")]) == 3
        assert [event.job for event in events.queued(limit=9)] == jobs[-5:]


def kept_bytes(database: Database) -> int:
    """Return how much all payloads take."""
    with database.read() as session:
        return session.scalar(sa.select(sa.func.sum(EventRow.size))) or 0


@contextlib.contextmanager
def statements_on(database: Database) -> Iterator[list[str]]:
    """Collect what the database is told."""
    told: list[str] = []
    listener = ("before_cursor_execute", lambda *given: told.append(given[2]))
    sa.event.listen(database.engine, *listener)
    yield told
    sa.event.remove(database.engine, *listener)
