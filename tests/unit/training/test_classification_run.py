"""A whole session that learns classes: clusters, heads, gate and version are real."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from ml_backend.engines.classifier import Classifier
from ml_backend.engines.classifier_file import from_file
from ml_backend.engines.clustering import NO_CLUSTER
from ml_backend.errors import TrainingError
from ml_backend.learning import (
    Promotion,
    Session,
    SessionState,
    TrainingParameters,
    Trigger,
    Version,
)
from ml_backend.model_files.version_folders import Publisher
from ml_backend.store.database import Database
from ml_backend.store.sessions import Sessions
from ml_backend.store.versions import Versions
from ml_backend.training.classification import (
    ClassificationRun,
    ClassificationTools,
    Clustered,
)
from ml_backend.training.interruption import Interruption
from ml_backend.training.outcome import Outcome
from ml_backend.training.session_log import SessionLog
from tests.unit.training.choices_world import (
    EMBEDDER,
    KINDS,
    OBJECTS,
    PROJECT,
    ChoicesWorld,
    cell,
    choice_of,
)

pytestmark = pytest.mark.unhurried


@dataclass
class Bench:
    """A world, the records, and what is needed to run sessions one after the other."""

    world: ChoicesWorld
    folder: Path
    promotion: Promotion = Promotion.AUTO
    drawn: list[Clustered] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sessions = Sessions(self.world.database)
        self.versions = Versions(self.world.database)

    def session(self, trigger: Trigger = Trigger.PERSON) -> Session:
        return self.sessions.request(
            PROJECT,
            controls=self.world.target.names,
            trigger=trigger,
            parameters=TrainingParameters(),
        )

    def served(self, control: str) -> Classifier | None:
        for activation in reversed(self.versions.history(PROJECT)):
            if control in activation.components:
                return from_file(Path(activation.components[control].path))
        return None

    def draw(self, clustered: Clustered) -> Mapping[str, bytes]:
        self.drawn.append(clustered)
        return {"embedding.png": b"picture"}

    def run(self, session: Session | None = None) -> Outcome:
        asked = session or self.session()
        lease = self.sessions.claim(asked.id, owner="test", lease_s=60.0)
        assert lease is not None
        claimed = self.sessions.get(asked.id)
        assert claimed is not None
        world = self.world
        tools = ClassificationTools(
            controls=world.target.controls,
            embedder=EMBEDDER,
            embedder_sha256=world.embedder.sha256,
            families=None,
            dataset=world.dataset,
            images=lambda _dataset: world.project_images(),
            served=self.served,
            draw=self.draw,
            promotion=self.promotion,
            publisher=Publisher(self.folder / "models"),
            versions=self.versions,
            base_requested="embedder:auto",
            facts={},
        )
        folder = self.folder / asked.id
        folder.mkdir(exist_ok=True)
        outcome = ClassificationRun(
            claimed,
            tools,
            journal=SessionLog(self.sessions, lease, claimed),
            interruption=Interruption(),
            folder=folder,
        ).run()
        self.sessions.finish(lease, outcome.state, message=outcome.message, version=outcome.version)
        return outcome

    def version(self, outcome: Outcome) -> Version:
        assert outcome.version is not None
        version = self.versions.get(PROJECT, outcome.version)
        assert version is not None
        return version

    def classifier(self, outcome: Outcome) -> Classifier:
        return from_file(Path(self.version(outcome).component.path))

    def taken(self, outcome: Outcome) -> set[str]:
        return {
            control
            for activation in self.versions.history(PROJECT)
            for control, origin in activation.origins.items()
            if origin.version_name == outcome.version
        }


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    database.migrate()
    yield Bench(ChoicesWorld(tmp_path, database), tmp_path)
    database.close()


def add_images(world: ChoicesWorld, count: int, *, first: int = 1) -> None:
    kinds = list(KINDS)
    for task_id in range(first, first + count):
        world.add_image(task_id, kinds[task_id % len(kinds)])


def test_without_labels_there_are_clusters_and_nothing_is_claimed(bench: Bench) -> None:
    add_images(bench.world, 30)

    outcome = bench.run()

    assert outcome.state is SessionState.COMPLETED
    assert "nothing is claimed" in outcome.message
    assert outcome.version == "brightness-1-clusters-p3-v1"
    assert bench.taken(outcome) == {"kind", "traits"}
    answers = bench.classifier(outcome).answer("kind", bench.world.project_images().embeddings)
    assert {decision.choices for decision in answers.decisions} == {()}
    assert NO_CLUSTER not in answers.clusters


def test_a_policy_starts_no_clusters_of_itself(bench: Bench) -> None:
    add_images(bench.world, 6)

    outcome = bench.run(bench.session(Trigger.POLICY))

    assert outcome.state is SessionState.COMPLETED
    assert outcome.version is None
    assert "Nobody has chosen anything" in outcome.message


def test_a_policy_learns_nothing_where_all_choices_are_the_same(bench: Bench) -> None:
    for task_id in range(1, 6):
        bench.world.add_image(task_id, "bright")
        bench.world.choose(task_id, choice_of("kind", "bright"))

    outcome = bench.run(bench.session(Trigger.POLICY))

    assert outcome.version is None
    assert "nothing to tell apart yet" in outcome.message


def test_labels_of_objects_are_not_learned_before_there_are_two(bench: Bench) -> None:
    world = bench.world
    world.config = OBJECTS
    empty = bench.run()
    for task_id in (1, 2, 3):
        world.add_image(task_id, "bright")
        world.choose(task_id, cell(1, "Round", 5), cell(2, "Round", 60))

    alike = bench.run()

    assert "Nobody has chosen anything for cells/labels" in empty.message
    assert "nothing to tell apart yet" in alike.message
    assert bench.versions.all(PROJECT) == []


def test_an_empty_project_fails_with_a_sentence(bench: Bench) -> None:
    with pytest.raises(TrainingError, match="no image to learn from"):
        bench.run()


def test_one_image_is_a_cluster_of_its_own(bench: Bench) -> None:
    add_images(bench.world, 1)

    outcome = bench.run()

    classifier = bench.classifier(outcome)
    clustering = classifier.controls["kind"].clustering
    assert clustering is not None
    assert len(clustering) == 1


def test_labels_teach_the_control_that_has_them_and_no_other(bench: Bench) -> None:
    bench.world.label(60)
    add_images(bench.world, 30, first=61)

    outcome = bench.run()

    classifier = bench.classifier(outcome)
    assert "Promoted: kind: better" in outcome.message
    assert classifier.controls["kind"].head is not None
    assert classifier.controls["traits"].head is None
    images = bench.world.project_images()
    answers = classifier.answer("kind", images.embeddings)
    kinds = list(KINDS)
    right = [
        decision.choices == (kinds[task % len(kinds)],)
        for (task, _), decision in zip(images.items, answers.decisions, strict=True)
    ]
    assert np.mean(right) > 0.95
    assert "logistic" in outcome.version or "clusters" in outcome.version


def test_what_was_learned_is_in_the_report_and_the_manifest(bench: Bench) -> None:
    bench.world.label(60)

    session = bench.session()
    outcome = bench.run(session)

    ended = bench.sessions.get(session.id)
    assert ended is not None
    learned = ended.report["learned"]["kind"]
    assert learned["metric"] == "balanced accuracy"
    assert learned["calibration_error"] is not None
    assert ended.report["gate"]["kind"]["taken"]
    folder = Path(bench.version(outcome).component.path).parent
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["pictures"] == ["embedding.png"]
    assert (folder / "embedding.png").read_bytes() == b"picture"
    assert manifest["parent"]["name"] == EMBEDDER.name


def test_multiple_choices_are_learned_as_well(bench: Bench) -> None:
    world = bench.world
    for task_id in range(1, 61):
        kind = list(KINDS)[task_id % 3]
        world.add_image(task_id, kind)
        traits = {"dark, very": ("striped",), "mid/gray": ("striped", "dotted"), "bright": ()}
        regions = [choice_of("kind", kind)]
        if traits[kind]:
            regions.append(choice_of("traits", *traits[kind]))
        world.choose(task_id, *regions)

    outcome = bench.run()

    answers = bench.classifier(outcome).answer("traits", world.project_images().embeddings)
    gray = [task % 3 == 1 for task, _ in world.project_images().items]
    found = [
        decision.choices
        for decision, is_gray in zip(answers.decisions, gray, strict=True)
        if is_gray
    ]
    assert np.mean([set(choices) == {"striped", "dotted"} for choices in found]) > 0.9


def test_a_second_session_that_is_no_better_is_kept_as_a_candidate(bench: Bench) -> None:
    bench.world.label(60)
    first = bench.run()
    bench.world.label(3, first=61)

    second = bench.run()

    assert bench.taken(first)
    assert bench.taken(second) == set()
    assert "Kept as a candidate" in second.message


def test_a_control_that_gets_better_is_served_anew_and_the_other_keeps_what_it_has(
    bench: Bench,
) -> None:
    world = bench.world
    world.label(60)
    bench.run()
    for task_id in range(1, 61):
        kind = list(KINDS)[task_id % 3]
        world.choose(
            task_id,
            choice_of("kind", kind),
            choice_of("traits", "striped" if kind == "bright" else "dotted"),
        )

    second = bench.run()

    assert bench.taken(second) == {"traits"}


def test_clusters_keep_their_numbers_when_images_come(bench: Bench) -> None:
    world = bench.world
    world.config = world.config.replace('name="kind"', 'name="kind" model_clusters="3"')
    add_images(world, 30)
    first = bench.classifier(bench.run())
    images = world.project_images()
    before = dict(zip(images.items, first.answer("kind", images.embeddings).clusters, strict=True))
    add_images(world, 30, first=31)

    second = bench.classifier(bench.run())

    after = dict(zip(images.items, second.answer("kind", images.embeddings).clusters, strict=True))
    assert before == after


def test_a_project_that_never_promotes_keeps_a_candidate(bench: Bench) -> None:
    bench.world.label(60)
    bench.promotion = Promotion.NEVER

    outcome = bench.run()

    assert bench.taken(outcome) == set()
    assert "never promotes" in outcome.message


def test_one_class_alone_convinces_nobody(bench: Bench) -> None:
    for task_id in range(1, 31):
        bench.world.add_image(task_id, "bright")
        bench.world.choose(task_id, choice_of("kind", "bright"))

    outcome = bench.run()

    assert "kind" not in bench.taken(outcome)
    assert "commonest answer" in outcome.message


def test_duplicate_images_with_different_labels_do_no_harm(bench: Bench) -> None:
    for task_id in range(1, 31):
        kind = list(KINDS)[task_id % 3]
        bench.world.add_image(task_id, "bright", seed=1)
        bench.world.choose(task_id, choice_of("kind", kind))

    outcome = bench.run()

    assert outcome.state is SessionState.COMPLETED
    assert "kind" not in bench.taken(outcome)


def test_a_session_that_was_killed_after_publishing_makes_no_second_version(
    bench: Bench,
) -> None:
    bench.world.label(60)
    session = bench.session()
    first = bench.run(session)
    ended = bench.sessions.get(session.id)
    assert ended is not None
    killed = replace(ended, state=SessionState.RUNNING)
    run = ClassificationRun(
        killed,
        ClassificationTools(
            controls=bench.world.target.controls,
            embedder=EMBEDDER,
            embedder_sha256=bench.world.embedder.sha256,
            families=None,
            dataset=bench.world.dataset,
            images=lambda _dataset: bench.world.project_images(),
            served=bench.served,
            draw=bench.draw,
            promotion=Promotion.AUTO,
            publisher=Publisher(bench.folder / "models"),
            versions=bench.versions,
            base_requested="embedder:auto",
            facts={},
        ),
        journal=SessionLog(
            bench.sessions, bench.sessions.claim(session.id, owner="x", lease_s=1.0), killed
        ),
        interruption=Interruption(),
        folder=bench.folder / session.id,
    )

    second = run.run()

    assert second == first
    assert len(bench.versions.all(PROJECT)) == 1
    assert len(bench.versions.history(PROJECT)) == 1
