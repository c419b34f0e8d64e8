"""What starts of trainings lead to: of projects, of datasets, and anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ml_backend.callers import Caller, Role
from ml_backend.domain import CLASSIFIER, Component
from ml_backend.errors import BadRequest, Conflict, ModelError, NotFound
from ml_backend.learning import (
    UPLOADS,
    Session,
    SessionState,
    TrainingParameters,
    Trigger,
    Version,
    VersionState,
)
from ml_backend.service.dataset_sources import AllowedPaths, DatasetWish
from ml_backend.service.model_names import ModelNames
from ml_backend.service.session_starts import LONGEST_LABEL, SessionStarter, StarterRecords
from ml_backend.store.datasets import Datasets
from tests.unit.service.learning_desk import BASE, KEY, LearningDesk, label_config, open_desk

ANN = Caller(name="ann", role=Role.TRAIN)
OTHER = '<RectangleLabels name="boxes" toName="image" model_name="cpsam"><Label value="A"/>'
TWO_NETWORKS = label_config(more=f"{OTHER}</RectangleLabels>")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[LearningDesk]:
    desk = open_desk(tmp_path)
    desk.introduce()
    yield desk
    desk.database.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the folder that datasets and checkpoints may lie in."""
    (tmp_path / "data" / "nuclei").mkdir(parents=True)
    return tmp_path / "data"


@pytest.fixture
def datasets(desk: LearningDesk) -> Datasets:
    """Return the table of datasets."""
    return Datasets(desk.database, clock=desk.clock)


@pytest.fixture
def starter(desk: LearningDesk, datasets: Datasets, root: Path) -> SessionStarter:
    """Return what starts sessions."""
    records = StarterRecords(
        projects=desk.projects,
        datasets=datasets,
        sessions=desk.sessions,
        components=desk.components,
        models=ModelNames(desk.database, others=["nuclei-1"]),
    )
    return SessionStarter(
        records,
        desk.planner,
        AllowedPaths([root]),
        default_model="auto",
        usual=TrainingParameters(max_minutes=30),
    )


def version(name: str, project: Any = KEY, **more: Any) -> Version:
    """Return a network that was trained."""
    return Version(
        **{
            "project": project,
            "name": name,
            "state": VersionState.CANDIDATE,
            "controls": ("cells",),
            "component": replace(BASE, name=name),
            "session_id": None,
            "parent": BASE.name,
            "created_at": 1.0,
            "metrics": {},
            **more,
        }
    )


class TestProjects:
    def test_a_start_without_wishes_does_as_the_label_config_says(
        self, desk: LearningDesk, starter: SessionStarter
    ) -> None:
        desk.introduce(label_config('model_epochs="7"'))

        (session,) = starter.start_project("1", by=ANN)

        assert (session.owner, session.trigger) == ("ann", Trigger.PERSON)
        assert session.parameters == TrainingParameters(n_epochs=7)
        assert (session.dataset, session.label, session.base) == (None, None, None)
        assert starter.start_project("1", by=ANN) == [session]

    def test_wishes_override_the_label_config_and_leave_the_rest(
        self, desk: LearningDesk, starter: SessionStarter
    ) -> None:
        desk.introduce(label_config('model_epochs="7" model_learning_rate="0.001"'))
        wishes = {"n_epochs": 3, "enable_clahe": True, "seed": None, "from_active": True}

        (session,) = starter.start_project("1", by=ANN, parameters=wishes, label=" cells ")

        assert session.parameters == TrainingParameters(
            n_epochs=3, learning_rate=0.001, clahe=True, from_active=True
        )
        assert session.label == "cells"

    def test_every_network_of_a_project_gets_them(
        self, desk: LearningDesk, starter: SessionStarter
    ) -> None:
        desk.introduce(TWO_NETWORKS)
        begun = starter.start_project("1", by=ANN, parameters={"n_epochs": 3})
        assert {session.controls for session in begun} == {("cells",), ("boxes",)}
        assert {session.parameters.n_epochs for session in begun} == {3}

    def test_one_that_waits_and_would_train_otherwise_is_no_answer(
        self, desk: LearningDesk, starter: SessionStarter
    ) -> None:
        desk.introduce(TWO_NETWORKS)
        begun = starter.start_project("1", by=ANN, parameters={"n_epochs": 3}, label="a")
        asked = {"parameters": {"n_epochs": 3}, "label": "a"}
        assert starter.start_project("1", by=ANN, **asked) == begun
        for other in ({"parameters": {"n_epochs": 4}, "label": "a"}, {**asked, "label": "b"}):
            with pytest.raises(Conflict, match="waits already, with other parameters"):
                starter.start_project("1", by=ANN, **other)
        assert len(desk.sessions.find()) == 2

    def test_nothing_is_begun_where_one_of_several_cannot_be(
        self, desk: LearningDesk, starter: SessionStarter
    ) -> None:
        desk.introduce(TWO_NETWORKS)
        starter.start_project("1", by=ANN)
        stopped, waiting = desk.sessions.find()
        desk.sessions.request_stop(stopped.id)

        with pytest.raises(Conflict, match=waiting.id):
            starter.start_project("1", by=ANN, parameters={"n_epochs": 4})

        assert desk.sessions.find(state=SessionState.QUEUED) == [waiting]

    def test_what_the_network_cannot_do_is_refused_at_once(
        self, desk: LearningDesk, starter: SessionStarter
    ) -> None:
        with pytest.raises(BadRequest, match="no attention to put adapters on"):
            starter.start_project("1", by=ANN, parameters={"lora_rank": 4})
        assert desk.sessions.find() == []

    def test_bad_parameters_and_unknown_projects_begin_nothing(
        self, desk: LearningDesk, starter: SessionStarter
    ) -> None:
        with pytest.raises(BadRequest, match="n_epochs is 0"):
            starter.start_project("1", by=ANN, parameters={"n_epochs": 0})
        with pytest.raises(NotFound):
            starter.start_project("2", by=ANN, parameters={"n_epochs": 1})
        with pytest.raises(BadRequest, match="label must be at most"):
            starter.start_project("1", by=ANN, label="x" * (LONGEST_LABEL + 1))
        assert desk.sessions.find() == []

    def test_a_start_that_a_person_wants_otherwise_runs_though_nothing_changed(
        self, desk: LearningDesk, starter: SessionStarter
    ) -> None:
        desk.annotate(4)
        desk.listen()
        (first,) = starter.start_project("1", by=ANN)
        desk.woken.append(first.id)
        desk.run_next()

        (same,) = starter.start_project("1", by=ANN)
        assert desk.planner.why_not_to_run(same) is not None
        desk.sessions.request_stop(same.id)
        (other,) = starter.start_project("1", by=ANN, parameters={"n_epochs": 3})
        assert desk.planner.why_not_to_run(other) is None


class TestDatasets:
    def test_a_folder_is_trained_on_with_what_is_wished_and_what_is_usual(
        self, datasets: Datasets, starter: SessionStarter, root: Path
    ) -> None:
        wish = DatasetWish(artifact=str(root / "nuclei"), train_images="images/")

        session = starter.start_dataset(
            wish, by=ANN, parameters={"n_epochs": 3, "enable_clahe": True}, label="nuclei"
        )

        dataset = datasets.get("nuclei")
        assert dataset is not None
        assert dataset.source.train_images == "images/"
        assert (session.project, session.dataset) == (dataset.key, "nuclei")
        assert (session.controls, session.owner, session.label) == (("masks",), "ann", "nuclei")
        assert session.parameters == TrainingParameters(n_epochs=3, clahe=True, max_minutes=30)
        assert (session.base, session.state) == (None, SessionState.QUEUED)

    def test_a_dataset_is_trained_several_times_at_once(
        self, desk: LearningDesk, datasets: Datasets, starter: SessionStarter, root: Path
    ) -> None:
        wish = DatasetWish(artifact=str(root / "nuclei"))
        first = starter.start_dataset(wish, by=ANN)
        second = starter.start_dataset(wish, by=ANN)
        third = starter.start_dataset(DatasetWish(artifact="nuclei"), by=ANN)
        assert len({first.id, second.id, third.id}) == 3
        assert len(datasets.all()) == 1
        assert desk.planner.why_not_to_run(first) is None

    @pytest.mark.parametrize(
        "bad",
        [
            {"parameters": {"n_epochs": 0}},
            {"parameters": {"from_active": True}},
            {"parameters": {"lora_rank": 4}},  # auto is the built-in network here
            {"parameters": {"lora_rank": 4}, "model": "nuclei-1"},
            {"parameters": {"crop": 128}, "model": "cpsam"},
            {"label": "a\nb"},
            {"model": "a\0b"},
            {"model": ""},
            {"model": "/etc/passwd"},
        ],
        ids=str,
    )
    def test_what_is_not_allowed_leaves_no_dataset_and_no_session(
        self,
        desk: LearningDesk,
        datasets: Datasets,
        starter: SessionStarter,
        root: Path,
        bad: dict[str, Any],
    ) -> None:
        with pytest.raises(BadRequest):
            starter.start_dataset(DatasetWish(artifact=str(root / "nuclei")), by=ANN, **bad)
        assert datasets.all() == []
        assert desk.sessions.find() == []


class TestModels:
    def base(self, starter: SessionStarter, root: Path, model: str | None) -> str | None:
        wish = DatasetWish(artifact=str(root / "nuclei"))
        return starter.start_dataset(wish, by=ANN, model=model).base

    @pytest.mark.parametrize("model", [None, "auto", "nuclei-1", "cpsam", "cpsam_v2", "cpdino"])
    def test_names_that_every_machine_knows_stay_as_they_are(
        self, starter: SessionStarter, root: Path, model: str | None
    ) -> None:
        assert self.base(starter, root, model) == model

    def test_a_trained_or_uploaded_model_is_named_so_that_there_is_no_doubt(
        self, desk: LearningDesk, starter: SessionStarter, root: Path
    ) -> None:
        desk.versions.add(version("nuclei-1-p1-v1"))
        desk.versions.add(version("mine", UPLOADS))
        assert self.base(starter, root, "nuclei-1-p1-v1") == "nuclei-1-p1-v1"
        assert self.base(starter, root, "uploads/mine") == "mine"
        desk.versions.add(version("mine"))
        assert self.base(starter, root, "uploads/mine") == "uploads/mine"
        with pytest.raises(ModelError, match="Several models"):
            self.base(starter, root, "mine")

    def test_a_session_stands_for_the_model_that_it_made(
        self, desk: LearningDesk, starter: SessionStarter, root: Path
    ) -> None:
        (session,) = starter.start_project("1", by=ANN)
        with pytest.raises(ModelError, match="has made no model"):
            self.base(starter, root, session.id)
        desk.woken.append(session.id)
        desk.run_next(version="nuclei-1-p1-v1")
        assert self.base(starter, root, session.id) == "nuclei-1-p1-v1"
        assert self.base(starter, root, session.id[:10]) == "nuclei-1-p1-v1"

    def test_a_checkpoint_under_an_allowed_folder_is_named_by_its_path(
        self, starter: SessionStarter, root: Path
    ) -> None:
        (root / "own.safetensors").write_bytes(b"weights")
        (root / "link").symlink_to(root / "own.safetensors")
        assert self.base(starter, root, f"{root}/link") == f"{root}/own.safetensors"
        with pytest.raises(BadRequest, match="There is no checkpoint at"):
            self.base(starter, root, f"{root}/gone.safetensors")

    def test_what_cannot_be_trained_on_is_refused(
        self, desk: LearningDesk, starter: SessionStarter, root: Path
    ) -> None:
        classes = Component(
            name="classes-1", architecture=CLASSIFIER, sha256="c" * 64, path="/c", licence="CC0-1.0"
        )
        desk.versions.add(version("classes-1", component=classes))
        desk.versions.add(version("broken", state=VersionState.REFUSED, message="It is damaged."))
        for name, said in (
            ("classes-1", "finds no masks"),
            ("broken", "It is damaged."),
            ("cpsan", "There is no model or file 'cpsan'; use one of nuclei-1"),
            ("own.safetensors", "There is no model or file"),
        ):
            with pytest.raises(ModelError, match=said):
                self.base(starter, root, name)


class TestRestarting:
    def ended(
        self, desk: LearningDesk, session: Session, state: SessionState, version: str | None = None
    ) -> Session:
        lease = desk.sessions.claim(session.id, owner="trainer", lease_s=60)
        assert lease is not None
        desk.sessions.finish(lease, state, message="done", version=version)
        found = desk.sessions.get(session.id, with_manifest=False)
        assert found is not None
        return found

    @pytest.fixture
    def old(self, desk: LearningDesk, starter: SessionStarter, root: Path) -> Session:
        """Return a session about a dataset that waits."""
        wish = DatasetWish(artifact=str(root / "nuclei"))
        asked = {"n_epochs": 5, "seed": 7}
        return starter.start_dataset(wish, by=ANN, parameters=asked, label="a", model="cpsam")

    @pytest.mark.parametrize("state", ["completed", "stopped", "failed"])
    def test_a_restart_is_a_new_session_that_goes_on_from_the_old(
        self, desk: LearningDesk, starter: SessionStarter, old: Session, state: str
    ) -> None:
        ended = self.ended(desk, old, SessionState(state), "v1" if state == "completed" else None)
        ben = Caller(name="ben", role=Role.TRAIN)

        same = starter.restart(ended, by=ben)
        longer = starter.restart(ended, by=ben, n_epochs=50)

        assert len({old.id, same.id, longer.id}) == 3
        assert same.parameters == old.parameters
        assert longer.parameters == replace(old.parameters, n_epochs=50)
        for begun in (same, longer):
            assert (begun.restarted_from, begun.owner, begun.state) == (old.id, "ben", "queued")
            assert (begun.dataset, begun.project) == (old.dataset, old.project)
            assert (begun.label, begun.base) == ("a", "cpsam")
            assert desk.planner.why_not_to_run(begun) is None

    def test_what_has_not_ended_is_not_restarted(
        self, desk: LearningDesk, starter: SessionStarter, old: Session
    ) -> None:
        with pytest.raises(Conflict, match="is queued"):
            starter.restart(old, by=ANN)
        desk.sessions.claim(old.id, owner="trainer", lease_s=60)
        running = desk.sessions.get(old.id)
        assert running is not None
        with pytest.raises(Conflict, match="is running"):
            starter.restart(running, by=ANN)

    def test_what_never_learned_anything_is_not_restarted(
        self, desk: LearningDesk, starter: SessionStarter, old: Session
    ) -> None:
        stopped = desk.sessions.request_stop(old.id)
        with pytest.raises(Conflict, match="never ran"):
            starter.restart(stopped, by=ANN)
        desk.sessions.resume(old.id)
        without = self.ended(desk, old, SessionState.COMPLETED)
        with pytest.raises(Conflict, match="made no model"):
            starter.restart(without, by=ANN)

    @pytest.mark.parametrize("epochs", [0, -3, 10**6, 1.5, "7", True])
    def test_impossible_epochs_are_refused(
        self, desk: LearningDesk, starter: SessionStarter, old: Session, epochs: Any
    ) -> None:
        ended = self.ended(desk, old, SessionState.FAILED)
        with pytest.raises(BadRequest, match="n_epochs is "):
            starter.restart(ended, by=ANN, n_epochs=epochs)

    def test_a_project_has_one_that_waits_and_no_second(
        self, desk: LearningDesk, starter: SessionStarter
    ) -> None:
        (session,) = starter.start_project("1", by=ANN)
        ended = self.ended(desk, session, SessionState.STOPPED)
        begun = starter.restart(ended, by=ANN, n_epochs=9)
        assert starter.restart(ended, by=ANN, n_epochs=9) == begun
        with pytest.raises(Conflict, match=begun.id):
            starter.restart(ended, by=ANN, n_epochs=10)
