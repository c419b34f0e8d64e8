"""What splits, versions and activations promise on every database."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from ml_backend.domain import Component, ProjectKey
from ml_backend.errors import StoreError
from ml_backend.learning import (
    UPLOADS,
    Activation,
    ActivationState,
    Origin,
    Side,
    Version,
    VersionState,
)
from ml_backend.store.components import Components
from ml_backend.store.database import Database
from ml_backend.store.events import START_TRAINING, Events, EventState
from ml_backend.store.releases import Releases
from ml_backend.store.splits import Splits
from ml_backend.store.versions import Serving, Versions
from tests.contracts.learning_records import OTHER_PROJECT, PROJECT, component
from tests.fakes import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """Return our clock."""
    return ManualClock()


@pytest.fixture
def versions(database: Database, clock: ManualClock) -> Versions:
    """Return the empty tables."""
    return Versions(database, clock=clock)


def version(name: str, **more: Any) -> Version:
    """Return a trained network of that name."""
    fields: dict[str, Any] = {
        "project": PROJECT,
        "name": name,
        "state": VersionState.CANDIDATE,
        "controls": ("cells",),
        "component": component(name, diameter=31.5),
        "session_id": "s1",
        "parent": "nuclei-1",
        "created_at": 5.0,
        "metrics": {"candidate": [0.7, 0.8]},
    }
    return Version(**{**fields, **more})


def serving(name: str, base: str = "auto") -> Serving:
    """Return what a control is served with."""
    return Serving(component=component(name), base_requested=base, version_name=name)


class TestSplits:
    def test_the_first_decision_about_a_group_stays(self, database: Database) -> None:
        splits = Splits(database)
        first = splits.decide(PROJECT, {"a": Side.TRAINING, "b": Side.HOLD_OUT})

        second = splits.decide(PROJECT, {"a": Side.HOLD_OUT, "c": Side.TRAINING})

        assert first == {"a": Side.TRAINING, "b": Side.HOLD_OUT}
        assert second == {"a": Side.TRAINING, "c": Side.TRAINING}
        assert splits.sides(PROJECT) == {**first, **second}
        assert splits.sides(OTHER_PROJECT) == {}

    def test_of_many_at_once_all_follow_the_first(self, database: Database) -> None:
        splits = Splits(database)
        start = threading.Barrier(8)
        groups = [f"group {number}" for number in range(20)]

        def decide(number: int) -> dict[str, Side]:
            order = groups if number % 2 else groups[::-1]
            start.wait()
            return splits.decide(
                PROJECT, dict.fromkeys(order, Side.TRAINING if number % 2 else Side.HOLD_OUT)
            )

        with ThreadPoolExecutor(8) as pool:
            decided = list(pool.map(decide, range(8)))

        assert all(one == splits.sides(PROJECT) for one in decided)


class TestVersions:
    def test_a_version_comes_back_as_it_was(self, versions: Versions) -> None:
        kept = version("nuclei-1-p7-v1", message="It found fewer cells.", base_requested="auto")
        versions.add(kept)
        versions.add(version("nuclei-1-p7-v2", created_at=6.0))

        assert versions.get(PROJECT, "nuclei-1-p7-v1") == kept
        assert [one.name for one in versions.all(PROJECT)] == ["nuclei-1-p7-v2", "nuclei-1-p7-v1"]
        assert versions.get(OTHER_PROJECT, "nuclei-1-p7-v1") is None

    def test_adding_the_same_weights_again_changes_nothing(self, versions: Versions) -> None:
        versions.add(version("v1"))
        versions.set_state(PROJECT, "v1", VersionState.PUBLISHED, "served")

        versions.add(version("v1"))

        kept = versions.get(PROJECT, "v1")
        assert kept is not None
        assert (kept.state, kept.message) == (VersionState.PUBLISHED, "served")
        versions.set_state(PROJECT, "v1", VersionState.PUBLISHED, "")
        assert versions.all(PROJECT) == [replace(kept, message=None)]

    def test_other_weights_under_a_known_name_are_refused(self, versions: Versions) -> None:
        versions.add(version("v1"))

        with pytest.raises(StoreError, match="another version 'v1'"):
            versions.add(version("v1", component=component("other")))

    def test_an_unknown_version_has_no_state(self, versions: Versions) -> None:
        with pytest.raises(StoreError, match="no version 'v9'"):
            versions.set_state(PROJECT, "v9", VersionState.ARCHIVED)

    def test_versions_are_found_by_name_whosever_they_are(self, versions: Versions) -> None:
        first, second = version("v1"), version("v1", project=OTHER_PROJECT, created_at=6.0)
        dataset = ProjectKey(origin="dataset", project_id=2, created_at=3)
        for one in (first, second, version("v2"), version("v1", project=UPLOADS, created_at=7.0)):
            versions.add(one)
        versions.add(version("v3", project=dataset, created_at=8.0))

        assert [one.project for one in versions.named("v1")] == [UPLOADS, OTHER_PROJECT, PROJECT]
        assert versions.named("v9") == []
        assert [one.name for one in versions.of_all_projects()] == ["v3", "v1", "v1", "v1", "v2"]
        assert versions.named("v3")[0].project == dataset

    def test_a_deleted_version_is_gone_and_its_name_is_free(self, versions: Versions) -> None:
        versions.add(version("v1"))
        versions.add(version("v1", project=OTHER_PROJECT))

        assert versions.delete(PROJECT, "v1")
        assert not versions.delete(PROJECT, "v1")

        assert [one.project for one in versions.named("v1")] == [OTHER_PROJECT]
        versions.add(version("v1", component=component("other")))

    def test_no_number_is_given_twice(self, versions: Versions) -> None:
        start = threading.Barrier(8)

        def number(_: int) -> int:
            start.wait()
            return versions.next_number(PROJECT)

        with ThreadPoolExecutor(8) as pool:
            numbers = sorted(pool.map(number, range(8)))

        assert numbers == list(range(1, 9))
        assert versions.next_number(OTHER_PROJECT) == 1


class TestActivations:
    @pytest.fixture
    def releases(self, database: Database, clock: ManualClock) -> Releases:
        """Return the table of releases, for the same clock."""
        return Releases(database, clock=clock)

    def ask(self, versions: Versions, *names: str, **more: Any) -> Activation:
        """Ask for the networks of these names, for controls of the first letter's name."""
        components = {name[0]: component(name) for name in names}
        fields: dict[str, Any] = {"components": components, "reason": "session 1"}
        return versions.request(PROJECT, **{**fields, **more})

    def switch(self, versions: Versions, releases: Releases, activation: Activation) -> str:
        """Carry an activation out; return the release's version."""
        claimed = versions.claim(activation.id, "engine", 30.0)
        assert claimed is not None
        overrides = {
            control: Serving(component=one, base_requested="auto", version_name=one.name)
            for control, one in claimed.components.items()
        }
        held = {**versions.serving(PROJECT), **overrides}
        made = releases.ensure(
            PROJECT,
            components={control: one.component for control, one in held.items()},
            canonical_config={"removed": list(claimed.removed)},
            label_config="<View/>",
            revision="1",
        )
        versions.switch(claimed, overrides=overrides, release_version=made.version, owner="engine")
        return made.version

    def served(self, versions: Versions) -> dict[str, str]:
        """Return the names of what is served."""
        return {control: one.version_name for control, one in versions.serving(PROJECT).items()}

    def test_a_switch_writes_pointer_serving_and_state_at_once(
        self, versions: Versions, releases: Releases, clock: ManualClock
    ) -> None:
        asked = self.ask(versions, "a1")

        release = self.switch(versions, releases, asked)

        active = releases.active(PROJECT)
        [done] = versions.history(PROJECT)
        assert active is not None
        assert active.version == release == done.release
        assert (done.state, done.finished_at) == (ActivationState.DONE, clock.now)
        assert (done.reason, done.components) == ("session 1", {"a": component("a1")})
        assert versions.serving(PROJECT) == versions.served_since(done.id) == {"a": serving("a1")}
        assert versions.serving(OTHER_PROJECT) == {}
        assert versions.due() == []

    def test_other_controls_keep_theirs_and_removed_ones_lose_it(
        self, versions: Versions, releases: Releases
    ) -> None:
        self.switch(versions, releases, self.ask(versions, "a1", "b1"))
        self.switch(versions, releases, self.ask(versions, "c1", removed=["a"]))

        assert self.served(versions) == {"b": "b1", "c": "c1"}

    def test_whose_version_is_served_is_kept_through_every_change(
        self, versions: Versions, releases: Releases
    ) -> None:
        lent = Origin(version_name="a1", base_requested="auto", version_project=UPLOADS)
        asked = self.ask(versions, "a1", origins={"a": lent})
        assert versions.history(PROJECT) == versions.under_way() == [asked]
        assert asked.origins == {"a": lent}
        self.switch(versions, releases, asked)
        claimed = self.ask(versions, "a2")
        self.switch(versions, releases, claimed)

        by_hand = replace(serving("a1"), version_project=UPLOADS)
        again = self.ask(versions, "a1", origins={"a": lent})
        versions.claim(again.id, "engine", 30.0)
        release = releases.active(PROJECT)
        assert release is not None
        versions.switch(again, overrides={"a": by_hand}, release_version=release.version)
        self.switch(versions, releases, self.ask(versions, "a2"))
        back = versions.roll_back(PROJECT, reason="a person")

        assert back.origins == {"a": lent}
        assert versions.under_way() == [back]
        assert versions.served_everywhere() == {PROJECT: {"a": serving("a2")}}

    def test_changes_written_before_models_were_lent_are_read(
        self, versions: Versions, database: Database
    ) -> None:
        asked = self.ask(
            versions, "a1", origins={"a": Origin(version_name="a1", base_requested="auto")}
        )
        with database.write() as session:
            old = b'{"a":{"version_name":"a1","base_requested":"auto"}}'
            session.execute(sa.text("UPDATE activations SET origins = :old"), {"old": old})

        assert versions.history(PROJECT) == [asked]

    def test_a_switch_to_an_unknown_release_changes_nothing(
        self, versions: Versions, releases: Releases
    ) -> None:
        asked = self.ask(versions, "a1")
        versions.claim(asked.id, "engine", 30.0)

        with pytest.raises(StoreError, match="make it first"):
            versions.switch(asked, overrides={"a": serving("a1")}, release_version="gone")

        assert versions.serving(PROJECT) == {}
        assert releases.active(PROJECT) is None
        assert versions.history(PROJECT)[0].state is ActivationState.REQUESTED

    def test_an_engine_that_lost_its_claim_cannot_switch_or_mark(
        self, versions: Versions, releases: Releases, clock: ManualClock
    ) -> None:
        asked = self.ask(versions, "a1")
        release = releases.ensure(
            PROJECT,
            components={"a": component("a1")},
            canonical_config={},
            label_config="",
            revision="1",
        )
        versions.claim(asked.id, "slow", 30.0)
        clock.forward(31)
        assert [one.id for one in versions.due()] == [asked.id]
        assert versions.claim(asked.id, "quick", 30.0) is not None

        assert not versions.renew(asked.id, "slow", 30.0)
        with pytest.raises(StoreError, match="leave it"):
            versions.mark(asked.id, "slow", ActivationState.FAILED)
        with pytest.raises(StoreError, match="leave it"):
            versions.switch(asked, overrides={}, release_version=release.version, owner="slow")

        assert versions.renew(asked.id, "quick", 30.0)
        versions.mark(asked.id, "quick", ActivationState.WARMED, release=release.version)
        assert versions.history(PROJECT)[0].state is ActivationState.WARMED

    def test_of_many_engines_one_gets_it(self, versions: Versions) -> None:
        asked = self.ask(versions, "a1")
        start = threading.Barrier(8)

        def claim(number: int) -> bool:
            start.wait()
            return versions.claim(asked.id, f"engine-{number}", 30.0) is not None

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(claim, range(8))) == 1

    def test_one_project_changes_one_thing_at_a_time(self, versions: Versions) -> None:
        first, second = self.ask(versions, "a1"), self.ask(versions, "a2")
        other = versions.request(OTHER_PROJECT, components={}, removed=["a"], reason="a person")

        due = [one.id for one in versions.due(limit=9)]
        early = versions.claim(second.id, "engine", 30.0)
        versions.claim(first.id, "engine", 30.0)
        versions.mark(first.id, "engine", ActivationState.FAILED, message="It is damaged.")
        after = [one.id for one in versions.due(limit=9)]

        failed = versions.history(PROJECT)[-1]
        assert (due, early) == ([first.id, other.id], None)
        assert after == [second.id, other.id]
        assert (failed.state, failed.message) == (ActivationState.FAILED, "It is damaged.")
        assert failed.finished_at is not None

    def test_what_is_postponed_is_due_after_its_pause(
        self, versions: Versions, clock: ManualClock
    ) -> None:
        asked = self.ask(versions, "a1")
        versions.claim(asked.id, "engine", 30.0)

        assert versions.postpone(asked.id, "engine", pause_s=60.0, message="It is full.")

        assert not versions.renew(asked.id, "engine", 30.0)
        assert versions.claim(asked.id, "engine", 30.0) is None
        clock.forward(59)
        assert versions.due() == []
        clock.forward(1)
        again = versions.claim(asked.id, "another", 30.0)
        assert again is not None
        assert (again.attempts, again.message) == (1, "It is full.")
        with pytest.raises(StoreError, match="leave it"):
            versions.postpone(asked.id, "engine", pause_s=60.0, message="It is full.")

    def test_the_next_change_does_not_wait_for_one_that_is_postponed(
        self, versions: Versions
    ) -> None:
        first = self.ask(versions, "a1")
        versions.claim(first.id, "engine", 30.0)
        versions.postpone(first.id, "engine", pause_s=60.0, message="It is full.")

        second = self.ask(versions, "a2")

        assert [one.id for one in versions.due(limit=9)] == [first.id]
        assert versions.claim(first.id, "engine", 30.0) is not None
        assert not versions.postpone(first.id, "engine", pause_s=60.0, message="It is full.")
        versions.mark(first.id, "engine", ActivationState.FAILED)
        assert [one.id for one in versions.due(limit=9)] == [second.id]

    def test_an_activation_knows_where_its_networks_come_from(
        self, versions: Versions, releases: Releases
    ) -> None:
        origins = {"a": Origin(version_name="v1", base_requested="nuclei (plane 2)")}
        asked = self.ask(versions, "a1", origins=origins)
        self.switch(versions, releases, asked)
        self.switch(versions, releases, self.ask(versions, "a2"))

        back = versions.roll_back(PROJECT, reason="a person")

        assert (asked.origins, asked.is_rollback) == (origins, False)
        assert versions.history(PROJECT)[-1].origins == origins
        assert back.is_rollback
        assert back.origins == {"a": Origin(version_name="a1", base_requested="auto")}

    def test_done_is_no_mark(self, versions: Versions) -> None:
        asked = self.ask(versions, "a1")
        versions.claim(asked.id, "engine", 30.0)

        with pytest.raises(StoreError, match="by switching"):
            versions.mark(asked.id, "engine", ActivationState.DONE)

    def test_rolling_back_again_and_again_ends_at_the_base_networks(
        self, versions: Versions, releases: Releases
    ) -> None:
        for names in (["a1"], ["b1"], ["a2"]):
            self.switch(versions, releases, self.ask(versions, *names))

        seen = [self.served(versions)]
        for _ in range(3):
            asked = versions.roll_back(PROJECT, reason="a person")
            self.switch(versions, releases, asked)
            seen.append(self.served(versions))

        assert seen == [{"a": "a2", "b": "b1"}, {"a": "a1", "b": "b1"}, {"a": "a1"}, {}]
        with pytest.raises(StoreError, match="back at its base networks"):
            versions.roll_back(PROJECT, reason="a person")

    def test_after_a_new_version_a_roll_back_goes_to_what_was_served_before_it(
        self, versions: Versions, releases: Releases
    ) -> None:
        for name in ("a1", "a2"):
            self.switch(versions, releases, self.ask(versions, name))
        self.switch(versions, releases, versions.roll_back(PROJECT, reason="a person"))
        self.switch(versions, releases, self.ask(versions, "a3"))

        self.switch(versions, releases, versions.roll_back(PROJECT, reason="a person"))

        assert self.served(versions) == {"a": "a1"}

    def test_there_is_no_way_back_while_a_change_is_under_way_or_before_the_first(
        self, versions: Versions
    ) -> None:
        with pytest.raises(StoreError, match="nothing but its base networks"):
            versions.roll_back(PROJECT, reason="a person")
        self.ask(versions, "a1")
        with pytest.raises(StoreError, match="wait until that is done"):
            versions.roll_back(PROJECT, reason="a person")


class TestComponentsWithADiameter:
    def test_it_is_kept_wherever_components_are(self, database: Database) -> None:
        tuned = component("nuclei-1-p7-v1", diameter=31.5)
        Components(database).record("mine", tuned, device="cpu")

        assert Components(database).resolved("mine") == tuned

    def test_components_that_were_stored_without_one_still_load(
        self, database: Database, versions: Versions
    ) -> None:
        releases = Releases(database)
        known = component("nuclei-1")
        made = releases.ensure(
            PROJECT,
            components={"cells": known},
            canonical_config={},
            label_config="",
            revision="1",
        )
        versions.add(version("v1", component=known))
        old: dict[str, Any] = asdict(known)
        del old["diameter"]
        with database.write() as session:
            session.execute(
                sa.text("UPDATE releases SET components = :old"),
                {"old": orjson.dumps({"cells": old})},
            )
            session.execute(
                sa.text("UPDATE versions SET component = :old"), {"old": orjson.dumps(old)}
            )

        release, kept = releases.by_version(PROJECT, made.version), versions.get(PROJECT, "v1")
        assert release is not None
        assert kept is not None
        assert release.components == {"cells": known}
        assert isinstance(kept.component, Component)
        assert kept.component == replace(known, diameter=None)


class TestEventsOfSessions:
    def test_a_press_of_the_button_leads_to_its_session(self, database: Database) -> None:
        events = Events(database)
        job = events.record(action=START_TRAINING, payload=b"{}")

        events.finish(job, EventState.DONE, session="s1")
        events.finish(job, EventState.DONE, "once more", "s1")

        event = events.get(job)
        assert event is not None
        assert (event.session, event.message) == ("s1", "once more")
        assert events.record(action=START_TRAINING, payload=b"{}") != job
