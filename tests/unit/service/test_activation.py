"""What a project serves changes at one moment, whenever engines and Label Studio break off."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from ml_backend.bootstrap.models import open_version_desk
from ml_backend.domain import (
    Component,
    DefaultModels,
    LabelStudioAccess,
    Prediction,
    ProjectKey,
    Task,
)
from ml_backend.errors import (
    CheckpointInvalid,
    ConfigError,
    Conflict,
    LabelStudioError,
    ModelNotFound,
    OutOfMemory,
    StoreError,
)
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.learning import ActivationState, Version, VersionState
from ml_backend.service import activation as activation_module
from ml_backend.service.activation import LEASE_S, RETRY_PAUSES_S, ActivationTools, Activator
from ml_backend.service.ahead import Ahead
from ml_backend.service.predictions import PredictionRequest
from ml_backend.service.releasing import Releasing
from ml_backend.service.repair import Repairs
from ml_backend.settings import Settings
from ml_backend.store.components import Components
from ml_backend.store.database import Database
from ml_backend.store.deliveries import Deliveries
from ml_backend.store.prediction_rows import PredictionKey
from ml_backend.store.project_updates import ProjectUpdates
from ml_backend.store.projects import Projects
from ml_backend.store.releases import Releases
from ml_backend.store.versions import Versions
from tests.fake_rows import FakeRows
from tests.fakes import ManualClock

PROJECT = ProjectKey(origin="http://ls.example", project_id=1, created_at=5)
CONFIG = (
    '<View><Image name="image" value="$image"/><PolygonLabels name="cells" toName="image">'
    '<Label value="Cell"/></PolygonLabels></View>'
)


def network(name: str) -> Component:
    return Component(
        name=name, architecture="residual-unet", sha256=name * 8, path=name, licence="CC0-1.0"
    )


BASE = network("base")


@dataclass
class FakeAhead:
    """Predicts every task at once."""

    asked: list[int] = field(default_factory=list)

    def predict_ahead(self, request: PredictionRequest) -> dict[PredictionKey, Prediction]:
        self.asked += [task.id for task in request.tasks]
        return {
            request.key(task): Prediction(
                result=[], score=0.5, model_version=request.release.version
            )
            for task in request.tasks
        }


class Engine:
    """An engine's part in swaps, on real records, with a Label Studio that a test steers."""

    def __init__(self, database: Database, clock: ManualClock) -> None:
        self.projects, self.releases = Projects(database), Releases(database, clock=clock)
        self.versions = Versions(database, clock=clock)
        self.components = Components(database, clock=clock)
        self.components.record("auto", BASE, device="cpu")
        self.projects.record(PROJECT, hostname=None, access_token=None, label_config=CONFIG)
        self.releasing = Releasing(
            models=DefaultModels(),
            revision="1",
            parse=parse_label_config,
            components=self.components,
            versions=self.versions,
            releases=self.releases,
        )
        self.base = self.releasing.activate(PROJECT, CONFIG).release.version
        self.label_studio: FakeRows | None = FakeRows(
            key=PROJECT,
            version=self.base,
            setup=lambda url: self.served,
            tasks=[Task(id=number, data={"image": f"{number}.png"}) for number in (1, 2, 3)],
        )
        self.predictions = FakeAhead()
        self.proven: list[str] = []
        self.faults: dict[str, Exception] = {}  # by the network's name
        self.desk = replace(open_version_desk(Settings(), database), versions=self.versions)
        updates = ProjectUpdates(database)
        self.repairs = Repairs(
            self.projects, self.releases, self.versions, updates, self.way, clock=clock
        )
        self.deliveries = Deliveries(database)
        self.clock = clock
        self.activator = self.start()

    def start(self) -> Activator:
        """Return the activations' worker of an engine that was just started."""
        tools = ActivationTools(
            projects=self.projects,
            versions=self.versions,
            releasing=self.releasing,
            prove=self.prove,
            ahead=Ahead(
                predictions=self.predictions,
                deliveries=self.deliveries,
                most_tasks=500,
                most_seconds=60.0,
            ),
            repairs=self.repairs,
            label_studio=self.way,
            access=lambda key: LabelStudioAccess(origin=None),
        )
        return Activator(tools)

    def way(self, key: ProjectKey) -> FakeRows | None:
        return self.label_studio

    def prove(self, component: Component) -> None:
        self.proven.append(component.name)
        if component.name in self.faults:
            raise self.faults[component.name]

    @property
    def served(self) -> str:
        """The version that /setup answers."""
        release = self.releases.active(PROJECT)
        assert release is not None
        return release.version

    def publish(
        self, name: str, *, sha256: str | None = None, asked: str = "auto", message: str = ""
    ) -> Component:
        component = replace(network(name), sha256=sha256 or name * 8)
        self.versions.add(
            Version(
                project=PROJECT,
                name=name,
                state=VersionState.CANDIDATE,
                controls=("cells", "nuclei"),
                component=component,
                session_id=None,
                parent="base",
                created_at=self.clock(),
                metrics={},
                message=message or None,
                base_requested=asked,
            )
        )
        return component

    def introduce(self, label_config: str) -> None:
        """Tell of a changed label config, as /setup does."""
        self.projects.record(PROJECT, hostname=None, access_token=None, label_config=label_config)
        with contextlib.suppress(ConfigError):
            self.releasing.activate(PROJECT, label_config)

    def swap(self, name: str) -> None:
        """Have a version served."""
        self.desk.activate(PROJECT, name, by="a test")
        self.activator.work()

    def message_of(self, name: str) -> str | None:
        version = self.versions.get(PROJECT, name)
        assert version is not None
        return version.message

    @property
    def networks(self) -> dict[str, str]:
        """The names of the networks that are served, by control."""
        release = self.releases.active(PROJECT)
        assert release is not None
        return {control: one.name for control, one in release.components.items()}

    def state_of(self, name: str) -> VersionState:
        version = self.versions.get(PROJECT, name)
        assert version is not None
        return version.state

    def last(self) -> tuple[ActivationState, str | None]:
        newest = self.versions.history(PROJECT)[0]
        return newest.state, newest.message


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(activation_module, "LABEL_STUDIO_PAUSES_S", (0.0, 0.0))
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    database.migrate()
    yield Engine(database, ManualClock())
    database.close()


def rows_of(engine: Engine) -> FakeRows:
    assert engine.label_studio is not None
    return engine.label_studio


def test_predictions_come_first_then_the_project_then_setup_then_the_title(
    engine: Engine,
) -> None:
    engine.publish("one")
    engine.desk.activate(PROJECT, "one", by="a test")

    assert engine.activator.work() == 1
    before_the_title = rows_of(engine).shown
    engine.repairs.look()

    assert before_the_title == (engine.base, engine.served)
    assert rows_of(engine).asked == [
        f"predictions {engine.served}",
        f"project {engine.served}",
        f"title {engine.served}",
    ]
    assert rows_of(engine).shown == (engine.served, engine.served)
    assert engine.served.startswith("one-")
    assert engine.proven == ["one"]
    assert engine.state_of("one") is VersionState.PUBLISHED
    assert engine.last() == (ActivationState.DONE, "3 of 3 open tasks were predicted ahead.")


def test_the_web_process_makes_the_very_same_version(engine: Engine) -> None:
    engine.publish("one")
    engine.desk.activate(PROJECT, "one", by="a test")
    engine.activator.work()
    after = engine.served

    again = engine.releasing.activate(PROJECT, CONFIG).release

    assert again.version == after
    assert again.components["cells"].name == "one"


def test_a_network_that_cannot_be_loaded_changes_nothing(engine: Engine) -> None:
    engine.publish("one")
    engine.faults["one"] = CheckpointInvalid("The file is damaged.")
    engine.desk.activate(PROJECT, "one", by="a test")

    engine.activator.work()
    engine.repairs.look()

    assert engine.served == engine.base
    assert rows_of(engine).asked == []
    assert engine.last() == (ActivationState.FAILED, "The file is damaged.")
    assert engine.state_of("one") is VersionState.REFUSED


@pytest.mark.parametrize("fault", [OutOfMemory(), RuntimeError("a defect")])
def test_a_promotion_outlives_a_device_that_is_full_for_a_while(
    engine: Engine, fault: Exception
) -> None:
    engine.publish("one", message="Promoted.")
    engine.faults["one"] = fault
    engine.swap("one")
    waiting, why = engine.last()
    assert engine.activator.work() == 0  # not at once

    engine.faults.clear()
    engine.clock.forward(RETRY_PAUSES_S[0])
    engine.activator.work()

    assert waiting is ActivationState.REQUESTED
    assert str(why).startswith("It is tried again after 10 s: ")
    assert engine.served.startswith("one-")
    assert engine.message_of("one") == "Promoted."


def test_a_device_that_stays_full_is_told_where_people_look(engine: Engine) -> None:
    engine.publish("one", message="Promoted.")
    engine.faults["one"] = OutOfMemory()
    engine.swap("one")
    for pause_s in RETRY_PAUSES_S:
        assert engine.last()[0] is not ActivationState.FAILED
        engine.clock.forward(pause_s)
        engine.activator.work()
    said = engine.message_of("one")

    assert sum(RETRY_PAUSES_S) > 300
    assert engine.last() == (ActivationState.FAILED, "The device ran out of memory.")
    assert said == "Promoted. It could not be put into service: The device ran out of memory."
    assert engine.state_of("one") is VersionState.CANDIDATE
    assert engine.served == engine.base

    engine.faults.clear()
    engine.swap("one")

    assert engine.served.startswith("one-")
    assert engine.message_of("one") == "Promoted."


def test_what_is_tried_again_and_again_makes_room_for_the_next(engine: Engine) -> None:
    engine.publish("one")
    engine.publish("two")
    engine.faults["one"] = OutOfMemory()
    engine.swap("one")

    engine.swap("two")
    engine.activator.work()

    assert [one.state for one in engine.versions.history(PROJECT)] == [
        ActivationState.DONE,
        ActivationState.FAILED,
    ]
    assert engine.served.startswith("two-")


def test_a_label_config_that_is_broken_for_a_moment_does_not_end_a_promotion(
    engine: Engine,
) -> None:
    engine.publish("one")
    engine.introduce("<View><Image")
    engine.swap("one")
    engine.introduce(CONFIG)
    engine.clock.forward(RETRY_PAUSES_S[0])

    engine.activator.work()

    assert engine.served.startswith("one-")


def test_without_credentials_only_the_pointer_moves(engine: Engine) -> None:
    engine.label_studio = None
    engine.publish("one")
    engine.desk.activate(PROJECT, "one", by="a test")

    engine.activator.work()
    engine.repairs.look()

    assert engine.served.startswith("one-")


def test_a_label_studio_that_is_away_gets_the_title_later(engine: Engine) -> None:
    rows = rows_of(engine)
    rows.failures = [LabelStudioError("It is away.")] * 4
    engine.publish("one")
    engine.desk.activate(PROJECT, "one", by="a test")

    engine.activator.work()
    engine.repairs.look()  # the fourth failure
    while_away = rows.shown
    engine.clock.forward(400)
    engine.repairs.look()

    assert engine.served.startswith("one-")
    assert while_away == (engine.base, engine.base)
    assert rows.shown == (engine.served, engine.served)


def test_a_label_studio_that_hiccups_takes_part_all_the_same(engine: Engine) -> None:
    rows_of(engine).failures = [LabelStudioError("It is away.")]
    engine.publish("one")
    engine.desk.activate(PROJECT, "one", by="a test")

    engine.activator.work()

    assert rows_of(engine).shown == (engine.base, engine.served)
    assert len(rows_of(engine).predictions) == 3


def test_a_project_without_open_tasks_follows_the_title(engine: Engine) -> None:
    rows_of(engine).annotated = {1, 2, 3}
    engine.publish("one")
    engine.desk.activate(PROJECT, "one", by="a test")

    engine.activator.work()
    engine.repairs.look()

    assert rows_of(engine).asked == [f"title {engine.served}"]
    assert rows_of(engine).shown == (engine.served, engine.served)


class Killed(BaseException):
    """The engine is gone at this very point."""


STEPS = ["prove", "mark", "predict", "import", "flip", "switch", "title"]


@pytest.mark.parametrize("step", STEPS)
def test_an_engine_killed_at_any_step_is_followed_by_one_that_ends_it(
    engine: Engine, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(engine)
    place, method = {
        "prove": (engine, "prove"),
        "mark": (engine.versions, "mark"),
        "predict": (engine.predictions, "predict_ahead"),
        "import": (rows, "import_predictions"),
        "flip": (rows, "update_project"),
        "switch": (engine.versions, "switch"),
        "title": (rows, "update_backend"),
    }[step]
    real = getattr(place, method)
    left = [True]

    def dies_once(*arguments: object, **named: object) -> object:
        done = real(*arguments, **named)
        if left:
            left.clear()
            raise Killed
        return done

    # the step is done, and nothing after it
    monkeypatch.setattr(place, method, dies_once)
    engine.activator = engine.start()
    engine.publish("one")
    engine.desk.activate(PROJECT, "one", by="a test")
    with contextlib.suppress(Killed):
        engine.activator.work()
        engine.repairs.look()
    assert not left

    engine.clock.forward(LEASE_S + 1)
    engine.start().work()
    engine.clock.forward(61)
    engine.repairs.look()

    assert engine.last()[0] is ActivationState.DONE
    assert rows.shown == (engine.served, engine.served)
    assert engine.served.startswith("one-")
    assert sorted(rows.predictions) == [(task, engine.served) for task in (1, 2, 3)]


def test_while_one_engine_swaps_another_neither_takes_it_nor_undoes_it(engine: Engine) -> None:
    engine.publish("one")
    engine.desk.activate(PROJECT, "one", by="a test")
    (due,) = engine.versions.due(limit=5)
    claimed = engine.versions.claim(due.id, "another engine", LEASE_S)
    assert claimed is not None
    release = engine.releasing.make(PROJECT, CONFIG, changed=due.components).release
    engine.versions.mark(due.id, "another engine", ActivationState.WARMED, release=release.version)
    rows_of(engine).predictions = [(1, release.version)]
    rows_of(engine).update_project(1, model_version=release.version)

    taken = engine.activator.work()
    engine.repairs.look()

    assert taken == 0
    assert rows_of(engine).shown == (engine.base, release.version)


def test_an_engine_that_was_thought_dead_does_not_switch_any_more(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.publish("one")
    engine.desk.activate(PROJECT, "one", by="a test")
    real = engine.predictions.predict_ahead

    def slow(request: PredictionRequest) -> dict[PredictionKey, Prediction]:
        engine.clock.forward(LEASE_S + 1)
        (due,) = engine.versions.due(limit=1)
        assert engine.versions.claim(due.id, "the next engine", LEASE_S) is not None
        return real(request)

    monkeypatch.setattr(engine.predictions, "predict_ahead", slow)
    engine.activator.work()

    assert engine.served == engine.base
    with pytest.raises(StoreError):
        engine.versions.mark(1, "someone", ActivationState.FAILED)


def test_rolling_back_goes_to_the_version_before_and_then_to_the_base(engine: Engine) -> None:
    served = [engine.base]
    for name in ("one", "two"):
        engine.publish(name)
        engine.desk.activate(PROJECT, name, by="a test")
        engine.activator.work()
        served.append(engine.served)
    rows = rows_of(engine)
    before = list(rows.predictions)

    back = []
    for _ in range(2):
        engine.desk.rollback(PROJECT, by="a test")
        engine.activator.work()
        back.append(engine.served)

    assert back == [served[1], served[0]]
    assert [row for row in rows.predictions if row not in before] == [
        (task, engine.base) for task in (1, 2, 3)
    ]  # the base had none here; those of "one" were used again


def test_a_rollback_to_a_model_that_was_deleted_since_changes_nothing(engine: Engine) -> None:
    for name in ("one", "two"):
        engine.publish(name)
        engine.swap(name)
    served = engine.served
    engine.desk.delete(PROJECT, "one")
    engine.faults["one"] = ModelNotFound("The weights of 'one' are gone.")

    engine.desk.rollback(PROJECT, by="a test")
    engine.activator.work()

    assert engine.served == served
    assert engine.last() == (ActivationState.FAILED, "The weights of 'one' are gone.")
    engine.desk.activate_base(PROJECT, by="a test")  # the way that is left
    engine.activator.work()
    assert engine.served == engine.base


def test_a_changed_label_config_keeps_the_trained_network(engine: Engine) -> None:
    engine.publish("one")
    engine.desk.activate(PROJECT, "one", by="a test")
    engine.activator.work()
    changed = CONFIG.replace('value="Cell"', 'value="Nucleus"')

    release = engine.releasing.activate(PROJECT, changed).release

    assert release.components["cells"].name == "one"


def test_a_control_that_asks_for_another_base_lets_go_of_its_trained_network(
    engine: Engine,
) -> None:
    engine.publish("one")
    engine.desk.activate(PROJECT, "one", by="a test")
    engine.activator.work()
    engine.components.record("cpsam_v2", network("cpsam"), device="cpu")
    changed = CONFIG.replace('toName="image">', 'toName="image" model_name="cpsam_v2">')

    release = engine.releasing.activate(PROJECT, changed).release

    assert release.components["cells"].name == "cpsam"


def test_a_setup_that_began_before_the_switch_does_not_undo_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.publish("one")
    engine.desk.activate(PROJECT, "one", by="a test")
    real = engine.versions.serving
    left = [True]

    def swapped_meanwhile(project: ProjectKey) -> object:
        found = real(project)
        if left:
            left.clear()
            engine.activator.work()
        return found

    monkeypatch.setattr(engine.versions, "serving", swapped_meanwhile)

    release = engine.releasing.activate(PROJECT, CONFIG).release

    assert release.version == engine.served
    assert engine.served.startswith("one-")


def test_a_label_config_that_changed_during_the_swap_is_the_one_that_is_served(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.publish("one")
    engine.desk.activate(PROJECT, "one", by="a test")
    changed = CONFIG.replace('value="Cell"', 'value="Nucleus"')
    real = engine.predictions.predict_ahead

    def changed_meanwhile(request: PredictionRequest) -> dict[PredictionKey, Prediction]:
        engine.releasing.activate(PROJECT, changed)
        engine.projects.record(PROJECT, hostname=None, access_token=None, label_config=changed)
        return real(request)

    monkeypatch.setattr(engine.predictions, "predict_ahead", changed_meanwhile)
    engine.activator.work()

    release = engine.releases.active(PROJECT)
    assert release is not None
    assert release.label_config == changed
    assert release.components["cells"].name == "one"


def test_a_version_for_a_control_that_is_gone_is_not_activated(engine: Engine) -> None:
    engine.publish("one")
    engine.desk.activate(PROJECT, "one", by="a test")
    engine.projects.record(
        PROJECT,
        hostname=None,
        access_token=None,
        label_config=CONFIG.replace('name="cells"', 'name="membranes"'),
    )

    engine.activator.work()

    state, message = engine.last()
    assert state is ActivationState.FAILED
    assert "no control cells" in str(message)
    assert engine.state_of("one") is VersionState.CANDIDATE


CHANGED = ['model_name="cpsam_v2"', 'model_channels="1"', 'model_plane="2"']


def asking(option: str) -> str:
    """Return the label config with an option on its control."""
    return CONFIG.replace('toName="image">', f'toName="image" {option}>')


@pytest.mark.parametrize("option", CHANGED)
def test_a_network_is_not_served_for_what_it_was_not_trained_for(
    engine: Engine, option: str
) -> None:
    engine.components.record("cpsam_v2", network("cpsam"), device="cpu")
    engine.publish("one", message="Promoted.")
    engine.desk.activate(PROJECT, "one", by="a test")
    engine.introduce(asking(option))  # while the activation waits
    before = engine.served

    engine.activator.work()

    state, message = engine.last()
    assert state is ActivationState.FAILED
    assert "one was trained for auto" in str(message)
    assert engine.served == before
    assert engine.versions.serving(PROJECT) == {}
    assert str(message) in str(engine.message_of("one"))


@pytest.mark.parametrize("option", CHANGED)
def test_a_network_that_is_served_lets_go_where_another_is_asked_for(
    engine: Engine, option: str
) -> None:
    engine.components.record("cpsam_v2", network("cpsam"), device="cpu")
    engine.publish("one")
    engine.swap("one")

    engine.introduce(asking(option))
    listed = engine.desk.list(PROJECT).versions
    assert engine.networks != {"cells": "one"}
    assert [item.serving for item in listed] == [()]
    engine.introduce(CONFIG)

    assert engine.networks == {"cells": "one"}


def test_of_two_controls_the_one_that_asks_for_another_keeps_what_it_has(engine: Engine) -> None:
    engine.components.record("cpsam_v2", network("cpsam"), device="cpu")
    engine.publish("one")
    engine.desk.activate(PROJECT, "one", by="a test")
    nuclei = asking('model_name="cpsam_v2"').replace('name="cells"', 'name="nuclei"')
    both = nuclei.replace("</View>", CONFIG.partition('value="$image"/>')[2])
    engine.introduce(both)

    engine.activator.work()

    assert engine.networks == {"cells": "one", "nuclei": "cpsam"}
    assert set(engine.versions.serving(PROJECT)) == {"cells"}
    assert "The control nuclei asks for cpsam_v2 by now" in str(engine.last()[1])


def test_rolling_back_across_another_base_goes_to_that_base(engine: Engine) -> None:
    engine.components.record("cpsam_v2", network("cpsam"), device="cpu")
    engine.publish("one")
    engine.swap("one")
    other = asking('model_name="cpsam_v2"')
    engine.introduce(other)
    engine.publish("two", asked="cpsam_v2")
    engine.swap("two")
    assert engine.networks == {"cells": "two"}

    engine.desk.rollback(PROJECT, by="a test")
    engine.activator.work()

    assert engine.last()[0] is ActivationState.DONE
    assert engine.networks == {"cells": "cpsam"}
    assert engine.releasing.activate(PROJECT, other).release.components["cells"].name == "cpsam"
    engine.introduce(CONFIG)
    assert engine.networks == {"cells": "one"}


def test_of_two_versions_with_the_same_weights_the_activated_one_is_named(engine: Engine) -> None:
    engine.publish("one", sha256="same")
    engine.clock.forward(1)
    engine.publish("two", sha256="same")

    engine.swap("two")

    assert engine.versions.serving(PROJECT)["cells"].version_name == "two"
    assert engine.state_of("one") is VersionState.CANDIDATE
    assert engine.state_of("two") is VersionState.PUBLISHED


# Models that were trained elsewhere

DATASET = ProjectKey(origin="dataset", project_id=4, created_at=7)


def bring(engine: Engine, name: str, owner: ProjectKey = DATASET) -> Component:
    """Keep a model of a dataset."""
    component = network(name)
    engine.versions.add(
        Version(
            project=owner,
            name=name,
            state=VersionState.CANDIDATE,
            controls=("masks",),
            component=component,
            session_id=None,
            parent="base",
            created_at=engine.clock(),
            metrics={},
            message="Trained on a folder.",
        )
    )
    return component


def lend(engine: Engine, name: str, owner: ProjectKey = DATASET) -> None:
    """Have a model of a dataset served by the project."""
    engine.desk.activate(owner, name, by="a test", target=PROJECT)
    engine.activator.work()


def owner_s(engine: Engine, name: str, owner: ProjectKey = DATASET) -> Version:
    version = engine.versions.get(owner, name)
    assert version is not None
    return version


def test_a_model_of_a_dataset_is_served_rolled_back_and_served_again(engine: Engine) -> None:
    engine.publish("own")
    bring(engine, "lent")
    engine.swap("own")
    with_own = engine.served

    lend(engine, "lent")
    with_lent = engine.served
    by_setup = engine.releasing.activate(PROJECT, CONFIG).release.version
    engine.desk.rollback(PROJECT, by="a test")
    engine.activator.work()
    after_rollback = engine.served
    lend(engine, "lent")
    engine.desk.rollback(PROJECT, by="a test")
    engine.activator.work()

    assert with_lent.startswith("lent-")
    assert by_setup == with_lent  # nothing is lost when Label Studio asks
    assert after_rollback == with_own == engine.served
    assert owner_s(engine, "lent").state is VersionState.PUBLISHED
    assert engine.versions.get(PROJECT, "lent") is None


def test_a_rollback_to_a_model_of_a_dataset_knows_whose_it_is(engine: Engine) -> None:
    engine.publish("own")
    bring(engine, "lent")
    lend(engine, "lent")
    engine.swap("own")

    engine.desk.rollback(PROJECT, by="a test")
    engine.activator.work()

    assert engine.served.startswith("lent-")
    assert engine.versions.serving(PROJECT)["cells"].version_project == DATASET
    with pytest.raises(Conflict, match="project 1 serves it for cells"):
        engine.desk.delete(DATASET, "lent")


def test_what_it_is_served_for_is_what_the_control_asked_for(engine: Engine) -> None:
    bring(engine, "lent")
    lend(engine, "lent")
    with_lent = engine.served
    other = CONFIG.replace('toName="image">', 'toName="image" model_channels="1">', 1)

    engine.introduce(other)
    elsewhere = engine.served
    engine.introduce(CONFIG)

    assert elsewhere.startswith("base-")  # as with models that were trained for the project
    assert engine.served == with_lent


def test_a_control_that_asks_for_something_else_by_then_keeps_what_it_has(
    engine: Engine,
) -> None:
    bring(engine, "lent")
    engine.desk.activate(DATASET, "lent", by="a test", target=PROJECT)
    engine.introduce(CONFIG.replace('toName="image">', 'toName="image" model_channels="1">', 1))
    engine.activator.work()

    state, message = engine.last()
    assert state is ActivationState.FAILED
    assert "lent was activated for auto" in str(message)
    assert "It could not be put into service" in str(owner_s(engine, "lent").message)


def test_a_model_of_a_dataset_that_cannot_be_loaded_is_refused_where_it_is_listed(
    engine: Engine,
) -> None:
    bring(engine, "lent")
    engine.publish("lent")  # the project has one of that name, which is fine
    engine.faults["lent"] = CheckpointInvalid("The file is damaged.")

    lend(engine, "lent")

    assert engine.last() == (ActivationState.FAILED, "The file is damaged.")
    assert owner_s(engine, "lent").state is VersionState.REFUSED
    assert engine.state_of("lent") is VersionState.CANDIDATE
