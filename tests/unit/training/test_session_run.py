"""A whole session with a training that takes no time; everything else is real or noted."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml_backend.domain import Component, Image, ProjectKey
from ml_backend.engines.catalogue import built_in_networks, resolve_component
from ml_backend.errors import (
    CheckpointInvalid,
    ModelError,
    ModelNotFound,
    SessionLost,
    StoreError,
)
from ml_backend.learning import (
    Activation,
    EpochPoint,
    Lease,
    Origin,
    Promotion,
    Session,
    SessionState,
    Side,
    TrainingParameters,
    Trigger,
    Version,
    VersionState,
)
from ml_backend.model_files.version_folders import Publisher
from ml_backend.store.database import Database
from ml_backend.store.sessions import Sessions
from ml_backend.store.versions import Versions
from ml_backend.training.annotated_image import AnnotatedImage
from ml_backend.training.collapse import LOOKS
from ml_backend.training.dataset import Dataset
from ml_backend.training.fine_tuned import FineTuned
from ml_backend.training.gate import Verdict
from ml_backend.training.interruption import Interrupted, Interruption, Why
from ml_backend.training.outcome import Outcome, guarded
from ml_backend.training.pixel_scores import PixelCounts, PixelScores
from ml_backend.training.progress import Progress
from ml_backend.training.scoring import ImageScore
from ml_backend.training.session import SessionRun, SessionTools
from ml_backend.training.session_log import SessionLog

PROJECT = ProjectKey(origin="http://ls", project_id=3, created_at=1_800_000_000)
EPOCHS = 6
LEASE_S = 30.0


def annotated(task: int, side: Side, objects: int = 2) -> AnnotatedImage:
    labels = np.zeros((8, 8), np.int32)
    labels[0, :objects] = range(1, objects + 1)
    return AnnotatedImage(
        task_id=task,
        annotation_ids=(task,),
        group=str(task),
        side=side,
        image=Image(pixels=np.zeros((8, 8, 1), np.uint8), sha256=str(task)),
        labels=labels,
    )


def a_dataset() -> Dataset:
    return Dataset(
        training=[annotated(1, Side.TRAINING), annotated(2, Side.TRAINING, 0)],
        hold_out=[annotated(3, Side.HOLD_OUT)],
        manifest={
            "task_hashes": {"1": "a", "2": "b", "3": "c"},
            "base_requested": "nuclei-1 (plane 2)",
        },
        report={"left_out": ["Task 9: its image could not be downloaded."]},
        diameter=4.0,
        diameter_spread=1.0,
    )


def progress_at(epoch: int, phase: str) -> Progress:
    return Progress(
        phase=phase,
        epoch=epoch,
        epochs=EPOCHS,
        step=epoch,
        steps=EPOCHS,
        seconds=0.0,
        eta_s=None,
    )


@dataclass
class FakeTraining:
    """Trains by counting epochs in a file, which is its checkpoint."""

    fails: Exception | None = None
    diameter: float | None = 4.0  # that the network is served at; the dataset's is another thing
    during: Callable[[int], None] = lambda epoch: None
    epochs: list[int] = field(default_factory=list)
    starts: list[str] = field(default_factory=list)

    def __call__(
        self,
        start: Component,
        dataset: Dataset,
        *,
        folder: Path,
        on_epoch: Callable[[EpochPoint], None],
        on_step: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        score: Callable[[Path, float | None], tuple[float, float, float]] | None,
        pixels: Callable[[Path, float | None], PixelScores] | None,
    ) -> FineTuned:
        self.starts.append(start.name)
        checkpoint = folder / "checkpoint"
        weights = folder / "best.safetensors"
        done = int(checkpoint.read_text()) if checkpoint.exists() else 0
        weights.write_bytes(built_in_networks()[0].path.read_bytes())
        for _ in dataset.training:
            on_step(progress_at(done, "preparing"))
        for epoch in range(done + 1, EPOCHS + 1):
            self.during(epoch)
            if self.fails is not None:
                raise self.fails
            if should_stop():
                return self._result(weights, checkpoint, stopped=True)
            self.epochs.append(epoch)
            checkpoint.write_text(str(epoch))
            precision = None if score is None else score(weights, self.diameter)
            of_pixels = None if pixels is None else pixels(weights, self.diameter)
            on_step(progress_at(epoch, "training"))
            on_epoch(
                EpochPoint(
                    epoch=epoch,
                    step=epoch,
                    loss=1.0,
                    learning_rate=0.1,
                    precision=precision,
                    pixels=of_pixels,
                )
            )
        return self._result(weights, checkpoint, stopped=False)

    def _result(self, weights: Path, checkpoint: Path, *, stopped: bool) -> FineTuned:
        return FineTuned(
            weights=weights,
            checkpoint=checkpoint,
            epochs=EPOCHS,
            steps=EPOCHS,
            stopped=stopped,
            early=False,
            diameter=self.diameter,
            notes=("The last epoch was the best.",),
        )


class Workplace:
    """A session in real records, and what it works with."""

    def __init__(self, folder: Path, empty_records: Path) -> None:
        self.folder = folder / "session"
        self.folder.mkdir()
        records = shutil.copy(empty_records, folder / "records.sqlite3")
        database = Database(f"sqlite:///{records}")
        self.sessions = Sessions(database)
        self.versions = Versions(database)
        self.publisher = Publisher(folder / "models")
        self.base = resolve_component("nuclei-1", models_dir=Path("/nowhere"), cuda=False)
        self.training = FakeTraining()
        self.dataset: Callable[[], Dataset] = a_dataset
        self.found: Callable[[Component], int] = lambda component: 2
        self.promote = True
        self.judged: list[tuple[int, ...]] = []
        self.served: list[Component] = []
        self.scored: list[tuple[str, tuple[int, ...]]] = []
        self.pictures: dict[str, bytes] = {}
        self.broken: Callable[[Any], Any] = lambda inner: inner
        self.interruption = Interruption()
        self.start_another()

    def start_another(self) -> None:
        """Begin a session of the same project."""
        self.session = self.sessions.request(
            PROJECT,
            controls=["cells", "boxes"],
            trigger=Trigger.PERSON,
            parameters=TrainingParameters(),
        )
        self.lease = self._claim()

    def run(self) -> Outcome:
        """Run the session as its process does."""
        session = self.now()
        run = SessionRun(
            session,
            self.tools(),
            journal=self.broken(SessionLog(self.sessions, self.lease, session)),
            interruption=self.interruption,
            folder=self.folder,
        )
        return guarded(run.run, self.interruption)

    def run_again(self) -> Outcome:
        """Run it in another process, after this one was killed."""
        self.sessions.heartbeat(self.lease, 0)
        self.lease = self._claim()
        self.interruption = Interruption()
        return self.run()

    def now(self) -> Session:
        session = self.sessions.get(self.session.id)
        assert session is not None
        return session

    def tools(self) -> SessionTools:
        return SessionTools(
            dataset=self.dataset,
            base=self.base,
            start=self.base,
            served=lambda: self.served,
            train=self.training,
            score=self._score,
            component_of=lambda weights, start, diameter: replace(
                start, name="candidate", path=str(weights), sha256="candidate", diameter=diameter
            ),
            judge=self._judge,
            promotion=Promotion.AUTO,
            publisher=self.broken(self.publisher),
            versions=self.broken(self.versions),
            facts={"program": "test"},
            pictures=lambda: self.pictures,
            clock=lambda: 1_800_000_100.0,
        )

    def folders(self) -> list[str]:
        return sorted(path.name for path in self.publisher.folder(PROJECT, "x").parent.iterdir())

    def _claim(self) -> Lease:
        lease = self.sessions.claim(self.session.id, owner="test", lease_s=LEASE_S)
        assert lease is not None
        return lease

    def _score(self, component: Component, images: Sequence[AnnotatedImage]) -> list[ImageScore]:
        self.scored.append((component.name, tuple(image.task_id for image in images)))
        return [
            ImageScore(
                task_id=image.task_id,
                annotation_ids=image.annotation_ids,
                ap50=0.5,
                ap75=0.25,
                ap90=0.0,
                objects=image.objects,
                found=self.found(component),
                pixels=PixelCounts(outlined=4, found=2, shared=2),
            )
            for image in images
        ]

    def _judge(
        self,
        candidate: Sequence[ImageScore],
        active: Sequence[ImageScore],
        base: Sequence[ImageScore],
        promotion: Promotion,
    ) -> Verdict:
        scores = (candidate, active, base)
        self.judged.append(tuple(sum(one.found for one in each) for each in scores))
        return Verdict(
            promote=self.promote, sentence="It is better.", numbers={"images": len(candidate)}
        )


@pytest.fixture(scope="module")
def empty_records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("records") / "records.sqlite3"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.close()
    return path


@pytest.fixture
def workplace(tmp_path: Path, empty_records: Path) -> Workplace:
    return Workplace(tmp_path, empty_records)


def the_version(workplace: Workplace) -> Version:
    (version,) = workplace.versions.all(PROJECT)
    return version


def the_activation(workplace: Workplace) -> Activation:
    (activation,) = workplace.versions.history(PROJECT)
    return activation


def test_a_session_trains_publishes_and_asks_to_be_served(workplace: Workplace) -> None:
    outcome = workplace.run()

    version = the_version(workplace)
    assert outcome == Outcome(
        state=SessionState.COMPLETED, message="It is better.", version="nuclei-1-p3-v1"
    )
    assert version.name == outcome.version
    assert version.session_id == workplace.session.id
    assert version.parent == "nuclei-1"
    assert version.component.diameter == 4.0
    assert set(the_activation(workplace).components) == {"cells", "boxes"}
    assert the_activation(workplace).components["cells"] == version.component
    assert workplace.folders() == ["nuclei-1-p3-v1"]


def test_a_version_is_served_for_what_its_session_was_asked_for(workplace: Workplace) -> None:
    workplace.run()

    origin = Origin(version_name="nuclei-1-p3-v1", base_requested="nuclei-1 (plane 2)")
    assert the_version(workplace).base_requested == "nuclei-1 (plane 2)"
    assert the_activation(workplace).origins == {"cells": origin, "boxes": origin}


def test_weights_that_were_served_before_are_asked_to_be_served_again(
    workplace: Workplace,
) -> None:
    workplace.run()
    first = the_version(workplace)
    workplace.sessions.finish(workplace.lease, SessionState.COMPLETED, message="")
    workplace.start_another()

    workplace.run()

    newest, _ = workplace.versions.history(PROJECT)
    assert newest.components["cells"].sha256 == first.component.sha256
    assert newest.origins["cells"].version_name == "nuclei-1-p3-v2"


def test_the_records_say_what_was_learned_from_and_how_it_went(workplace: Workplace) -> None:
    workplace.run()

    session = workplace.now()
    points = workplace.sessions.curve(session.id)
    assert session.manifest["task_hashes"] == {"1": "a", "2": "b", "3": "c"}
    assert session.report["left_out"] == ["Task 9: its image could not be downloaded."]
    assert session.report["gate"] == {"images": 1}
    assert session.report["verdict"] == "It is better."
    assert [point.epoch for point in points] == list(range(1, EPOCHS + 1))
    assert points[0].precision == (0.5, 0.25, 0.0)
    assert session.progress["phase"] == "publishing"


def test_what_the_gate_refuses_is_kept_as_a_candidate(workplace: Workplace) -> None:
    workplace.promote = False

    outcome = workplace.run()

    assert outcome.state is SessionState.COMPLETED
    assert the_version(workplace).state is VersionState.CANDIDATE
    assert the_version(workplace).message == "It is better."
    assert workplace.versions.history(PROJECT) == []


def test_the_gate_compares_with_the_best_of_what_is_served(workplace: Workplace) -> None:
    active = replace(workplace.base, name="active", sha256="active")
    workplace.served = [workplace.base, active]
    workplace.found = lambda component: {"candidate": 3, "active": 2}.get(component.sha256, 1)

    workplace.run()

    assert workplace.judged == [(3, 2, 1)]


@pytest.mark.parametrize("error", [ModelNotFound("It is gone."), CheckpointInvalid("Damaged.")])
def test_a_served_version_that_cannot_be_loaded_is_left_out_of_the_comparison_and_named(
    workplace: Workplace, error: ModelError
) -> None:
    workplace.served = [
        replace(workplace.base, name=name, sha256=name) for name in ("gone", "active")
    ]

    def found(component: Component) -> int:
        if component.sha256 == "gone":
            raise error
        return {"candidate": 3, "active": 2}.get(component.sha256, 1)

    workplace.found = found
    assert workplace.run().state is SessionState.COMPLETED
    assert workplace.judged == [(3, 2, 1)]
    (sentence,) = workplace.now().report["not_compared"]
    assert sentence.startswith("gone is served now")
    assert error.message in sentence


def test_where_nothing_that_is_served_can_be_loaded_the_base_is_compared(
    workplace: Workplace,
) -> None:
    workplace.served = [replace(workplace.base, name="gone", sha256="gone")]

    def found(component: Component) -> int:
        if component.sha256 == "gone":
            raise ModelNotFound("It is gone.")
        return 3 if component.sha256 == "candidate" else 1

    workplace.found = found
    assert workplace.run().state is SessionState.COMPLETED
    assert workplace.judged == [(3, 1, 1)]


def test_a_candidate_that_cannot_be_loaded_is_a_failure(workplace: Workplace) -> None:
    def found(component: Component) -> int:
        if component.sha256 == "candidate" and len(workplace.training.epochs) == EPOCHS:
            raise CheckpointInvalid("Damaged.")
        return 2

    workplace.found = found
    assert workplace.run().state is SessionState.FAILED


@pytest.mark.parametrize("diameter", [None, 22.0])
def test_weights_in_training_are_scored_as_they_will_be_served(
    workplace: Workplace, diameter: float | None
) -> None:
    scored_at = []

    def found(component: Component) -> int:
        if component.sha256 == "candidate":
            scored_at.append(component.diameter)
        return 2

    workplace.found = found
    workplace.training.diameter = diameter
    workplace.run()

    assert scored_at == [diameter] * (EPOCHS + 1)
    assert the_version(workplace).component.diameter == diameter


def test_without_anything_else_served_the_base_is_what_is_served(workplace: Workplace) -> None:
    workplace.served = [workplace.base]
    workplace.found = lambda component: 3 if component.sha256 == "candidate" else 1

    workplace.run()

    assert workplace.judged == [(3, 1, 1)]


class Killed(BaseException):
    """Stands for kill -9: nothing that follows runs."""


class Breaking:
    """Passes everything on to something else, but breaks off at one method."""

    def __init__(
        self, inner: object, method: str, error: BaseException, *, after: bool = False
    ) -> None:
        self._inner, self._method, self._error, self._after = inner, method, error, after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name != self._method:
            return found

        def break_off(*args: Any, **named: Any) -> None:
            if self._after:
                found(*args, **named)
            raise self._error

        return break_off


class Counting:
    """Passes everything on to something else, and counts the calls of one method."""

    def __init__(self, inner: object, method: str, calls: list[str]) -> None:
        self._inner, self._method, self._calls = inner, method, calls

    def __getattr__(self, name: str) -> Any:
        if name == self._method:
            self._calls.append(name)
        return getattr(self._inner, name)


def test_each_image_that_is_prepared_for_training_gets_the_session_further(
    workplace: Workplace,
) -> None:
    calls: list[str] = []
    workplace.broken = lambda inner: Counting(inner, "part", calls)

    workplace.run()

    assert len(calls) == len(a_dataset().training)


MOMENTS = (
    "next_number",
    "keep_version",
    "publish",
    "add",
    "request",
)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_moment_of_publishing_it_makes_one_version(
    workplace: Workplace, moment: str, after: bool
) -> None:
    workplace.broken = lambda inner: Breaking(inner, moment, Killed(), after=after)
    with pytest.raises(Killed):
        workplace.run()
    workplace.broken = lambda inner: inner

    outcome = workplace.run_again()

    version = the_version(workplace)
    assert outcome.state is SessionState.COMPLETED
    assert outcome.version == version.name
    assert workplace.folders() == [version.name]
    assert the_activation(workplace).components["cells"] == version.component
    assert workplace.training.epochs == list(range(1, EPOCHS + 1))  # none twice


def test_a_folder_of_earlier_records_is_left_alone(
    workplace: Workplace, tmp_path: Path, empty_records: Path
) -> None:
    workplace.run()
    other = tmp_path / "other"
    other.mkdir()
    second = Workplace(other, empty_records)
    second.publisher = workplace.publisher

    outcome = second.run()

    assert outcome.version == "nuclei-1-p3-v2"
    assert workplace.folders() == ["nuclei-1-p3-v1", "nuclei-1-p3-v2"]


def test_a_person_who_stops_it_is_obeyed_and_it_goes_on_when_resumed(workplace: Workplace) -> None:
    def stop(epoch: int) -> None:
        if epoch == 3:
            workplace.interruption.why = Why.PERSON

    workplace.training.during = stop
    outcome = workplace.run()
    workplace.training.during = lambda _: None

    assert outcome.state is SessionState.STOPPED
    assert workplace.versions.all(PROJECT) == []
    assert workplace.run_again().state is SessionState.COMPLETED
    assert workplace.training.epochs == list(range(1, EPOCHS + 1))


def test_a_process_that_has_to_go_leaves_the_session_to_another(workplace: Workplace) -> None:
    def go(epoch: int) -> None:
        if epoch == 3:
            workplace.interruption.why = Why.PROCESS

    workplace.training.during = go
    with pytest.raises(Interrupted):
        workplace.run()
    workplace.training.during = lambda _: None

    assert workplace.now().state is SessionState.RUNNING
    assert workplace.run_again().state is SessionState.COMPLETED
    assert workplace.training.epochs == list(range(1, EPOCHS + 1))


@pytest.mark.parametrize("why", list(Why))
def test_scoring_in_the_middle_of_a_training_is_broken_off(workplace: Workplace, why: Why) -> None:
    def found(component: Component) -> int:
        if component.sha256 == "candidate" and len(workplace.training.epochs) == 2:
            workplace.interruption.why = why
            workplace.interruption.check()
        return 2

    workplace.found = found
    if why is Why.PERSON:
        assert workplace.run().state is SessionState.STOPPED
    else:
        with pytest.raises(Interrupted):
            workplace.run()
    workplace.found = lambda component: 2

    assert workplace.run_again().state is SessionState.COMPLETED


def test_a_network_that_unlearns_to_find_objects_is_ended_early(workplace: Workplace) -> None:
    workplace.dataset = lambda: replace(
        a_dataset(), hold_out=[annotated(task, Side.HOLD_OUT, 6) for task in (3, 4, 5)]
    )
    workplace.found = lambda component: 0 if component.sha256 == "candidate" else 6

    outcome = workplace.run()

    assert outcome.state is SessionState.FAILED
    assert "finds 0 objects" in outcome.message
    assert "model_roi" in outcome.message
    assert LOOKS <= len(workplace.training.epochs) < EPOCHS
    assert workplace.versions.all(PROJECT) == []


def test_nothing_to_learn_from_is_a_failure_with_a_sentence(workplace: Workplace) -> None:
    workplace.dataset = lambda: replace(a_dataset(), training=[annotated(2, Side.TRAINING, 0)])

    outcome = workplace.run()

    assert outcome.state is SessionState.FAILED
    assert "outlined object" in outcome.message
    assert workplace.now().report["left_out"]  # what was left out is told all the same
    assert workplace.training.epochs == []


def test_without_a_hold_out_it_trains_unscored(workplace: Workplace) -> None:
    workplace.dataset = lambda: replace(a_dataset(), hold_out=[])

    outcome = workplace.run()

    assert outcome.state is SessionState.COMPLETED
    assert workplace.sessions.curve(workplace.session.id)[0].precision is None


def test_a_full_disk_is_a_failure_that_can_be_resumed(workplace: Workplace) -> None:
    workplace.training.fails = OSError(errno.ENOSPC, "No space left on device", "checkpoint")
    outcome = workplace.run()
    workplace.training.fails = None

    assert outcome.state is SessionState.FAILED
    assert "disk is full" in outcome.message
    assert workplace.run_again().state is SessionState.COMPLETED


def test_a_full_disk_while_publishing_leaves_no_half_version(workplace: Workplace) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "weights.safetensors")
    workplace.broken = lambda inner: Breaking(inner, "publish", full)
    outcome = workplace.run()
    workplace.broken = lambda inner: inner

    assert outcome.state is SessionState.FAILED
    assert workplace.versions.all(PROJECT) == []
    assert workplace.run_again().state is SessionState.COMPLETED


def test_a_session_that_another_has_taken_over_writes_nothing_more(workplace: Workplace) -> None:
    def overtake(epoch: int) -> None:
        if epoch == 2:
            workplace.sessions.heartbeat(workplace.lease, 0)
            assert workplace.sessions.claim(workplace.session.id, owner="new", lease_s=LEASE_S)

    workplace.training.during = overtake

    with pytest.raises(SessionLost):
        workplace.run()

    assert workplace.now().lease == 2
    assert workplace.versions.all(PROJECT) == []


def test_records_that_are_away_are_no_failure(workplace: Workplace) -> None:
    workplace.broken = lambda inner: Breaking(inner, "add", StoreError())

    with pytest.raises(StoreError):
        workplace.run()
    workplace.broken = lambda inner: inner

    assert workplace.run_again().state is SessionState.COMPLETED
    assert len(workplace.folders()) == 1


def test_a_test_set_is_told_of_and_decides_nothing(workplace: Workplace) -> None:
    tested = [annotated(7, Side.HOLD_OUT, 3), annotated(8, Side.HOLD_OUT, 2)]
    workplace.dataset = lambda: replace(a_dataset(), test=tested)
    workplace.found = lambda component: 9 if component.sha256 == "candidate" else 4
    asked = workplace.scored

    workplace.run()

    test = workplace.now().report["test"]
    assert (test["images"], test["objects"]) == (2, 5)
    assert test["candidate"]["found"] == 18
    assert test["base"]["found"] == 8
    assert test["candidate"]["ap50"] == 0.5
    assert test["candidate"]["pixels"] == {"precision": 1, "recall": 0.5, "f1": 2 / 3, "iou": 0.5}
    assert the_version(workplace).metrics["test"] == test
    assert workplace.judged == [(9, 4, 4)]  # the one image that is held out
    points = workplace.sessions.curve(workplace.session.id)
    assert {point.pixels for point in points} == {(1, 0.5, 2 / 3, 0.5)}
    assert asked.count(("candidate", (7, 8))) == EPOCHS + 1


def test_without_a_test_set_there_is_nothing_of_it(workplace: Workplace) -> None:
    workplace.run()

    assert "test" not in workplace.now().report
    assert "test" not in the_version(workplace).metrics
    assert {point.pixels for point in workplace.sessions.curve(workplace.session.id)} == {None}


def test_pictures_are_kept_beside_the_weights(workplace: Workplace) -> None:
    workplace.pictures = {"curves.png": b"PNG"}

    outcome = workplace.run()

    folder = workplace.publisher.folder(PROJECT, str(outcome.version))
    assert (folder / "curves.png").read_bytes() == b"PNG"
