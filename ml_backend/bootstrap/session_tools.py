"""What a training session works with, made from the settings and the records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ml_backend.bootstrap.classification_tools import classify_at
from ml_backend.bootstrap.dataset_tools import DatasetWorkshop
from ml_backend.bootstrap.images import build_decoder, build_fetcher
from ml_backend.bootstrap.label_studio import access_of, label_studio_of
from ml_backend.bootstrap.learning import default_models, learning_defaults
from ml_backend.bootstrap.networks import resolver
from ml_backend.bootstrap.training import models_folder
from ml_backend.bootstrap.training_bench import TrainingBench, component_of
from ml_backend.bootstrap.workplace import Workplace, fine_tune_at
from ml_backend.datasets import is_dataset
from ml_backend.domain import Component, Image, Segmenter
from ml_backend.engines.device_profile import open_device
from ml_backend.errors import TrainingError
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.labelstudio.learning_options import read_learning_options
from ml_backend.labelstudio.targets import (
    AnyTarget,
    ChoicesTarget,
    Target,
    asked_by,
    find_target,
)
from ml_backend.learning import LearningOptions, Lease, Session
from ml_backend.model_files.version_folders import Publisher
from ml_backend.processes.manners import take_second_place
from ml_backend.settings import Settings
from ml_backend.store.annotations import AnnotationLedger
from ml_backend.store.components import Components
from ml_backend.store.database import Database
from ml_backend.store.projects import Project, Projects
from ml_backend.store.releases import Releases
from ml_backend.store.sessions import Sessions
from ml_backend.store.splits import Splits
from ml_backend.store.versions import Versions
from ml_backend.training.dataset import Dataset, DatasetBuilder
from ml_backend.training.folders import DATASET
from ml_backend.training.frozen_dataset import FrozenDataset, Keep
from ml_backend.training.gate import judge
from ml_backend.training.interruption import Interruption
from ml_backend.training.outcome import Outcome
from ml_backend.training.prediction_authors import PredictionAuthors
from ml_backend.training.session import SessionTools
from ml_backend.training.session_log import SessionLog


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a session is about, as the project's label config says now."""

    target: Target
    options: LearningOptions
    base: Component
    asked: str  # what its controls ask for: `targets.asked_by`


def work_on(
    settings: Settings,
    database: Database,
    session: Session,
    lease: Lease,
    interruption: Interruption,
    folder: Path,
    *,
    listener: Callable[[Mapping[str, Any]], None] = lambda _progress: None,
) -> Outcome:
    """Run a session in this process; see `training.outcome.guarded` for what it raises.

    `listener` is told of its progress at once.
    """
    device = open_device(settings.training_device or settings.device)
    threads = settings.training_threads
    take_second_place(device, threads=threads, gpu_share=settings.training_gpu_share)
    journal = SessionLog(Sessions(database), lease, session, listener=listener)
    place = Workplace(
        settings=settings,
        database=database,
        session=session,
        journal=journal,
        interruption=interruption,
        folder=folder,
        device=device,
    )
    if is_dataset(session.project):
        return fine_tune_at(place, DatasetWorkshop)
    project, found = find_subject(database, session)
    if isinstance(found, ChoicesTarget):
        return classify_at(place, found, project.label_config)
    return fine_tune_at(place, Workshop)


def find_subject(database: Database, session: Session) -> tuple[Project, AnyTarget]:
    """Return the project of a session, and what it is to learn as the label config says now.

    Raises:
        TrainingError: the label config has changed so that there is nothing to train.
        ConfigError: it cannot be used any more.
        StoreError
    """
    project = Projects(database).get(session.project)
    config = parse_label_config(project.label_config) if project else None
    target = find_target(config, session.controls) if config else None
    if project is None or target is None:
        raise TrainingError(_changed(session))
    return project, target


def _changed(session: Session) -> str:
    return (
        f"The controls {', '.join(session.controls)} are no longer trained together in "
        f"project {session.project.project_id}; its label config has changed. Press Start "
        "Training for a new session."
    )


class Workshop:
    """Makes the tools of one session."""

    def __init__(self, place: Workplace, segmenter: Segmenter) -> None:
        """Keep the collaborators, and read what the session is about.

        Raises:
            TrainingError, ModelError, StoreError: as `tools`.
        """
        self._place = place
        self._settings, self._database, self._session = (
            place.settings,
            place.database,
            place.session,
        )
        self._frozen = FrozenDataset(place.folder / DATASET)
        self._projects, self._versions = Projects(self._database), Versions(self._database)
        self._subject = self._read_subject()
        first = self._subject.target.teachers[0]  # its options decide what is served
        self._bench = TrainingBench(
            place=place,
            segmenter=segmenter,
            options=first.segmentation,
            score_threshold=first.score_threshold,
        )

    def tools(self) -> SessionTools:
        """Return the tools.

        Raises:
            TrainingError: the label config has changed so that there is nothing to train.
            ModelError: the base network is not on this machine.
            StoreError
        """
        subject, journal = self._subject, self._place.journal
        taken = self._place.restarted(subject.base)
        start = self._frozen.start() or taken or self._first_start()
        return SessionTools(
            dataset=partial(
                self._frozen.load_or,
                self._build,
                start,
                tell=lambda dataset: journal.tell(**dataset.report),
            ),
            base=subject.base,
            start=start,
            served=self._served,
            train=self._bench.train,
            score=self._bench.score,
            component_of=component_of,
            judge=judge,
            promotion=subject.options.promotion,
            publisher=Publisher(models_folder(self._settings)),
            versions=self._versions,
            facts=self._bench.facts(),
        )

    def _read_subject(self) -> Subject:
        session = self._session
        project, target = find_subject(self._database, session)
        if not isinstance(target, Target):
            raise TrainingError(_changed(session))
        options, _ = read_learning_options(project.label_config, learning_defaults(self._settings))
        return Subject(
            target=target,
            # how to train was settled when the session was asked for
            options=LearningOptions(
                policy=options.policy,
                promotion=options.promotion,
                parameters=session.parameters,
                roi_label=options.roi_label,
                group_field=options.group_field,
            ),
            base=self._base(target.model or self._settings.model),
            asked=asked_by(target.controls[0], default_models(self._settings)),
        )

    def _base(self, requested: str) -> Component:
        """Return the base network that the engines serve, or would serve."""
        resolved = Components(self._database).resolved(requested)
        if resolved is not None and Path(resolved.path).is_file():
            return resolved
        return resolver(self._settings, str(self._place.device), self._database)(requested)

    def _served(self) -> list[Component]:
        serving = self._versions.serving(self._session.project)
        networks = {
            serving[name].component.sha256: serving[name].component
            for name in self._subject.target.names
            if name in serving and serving[name].base_requested == self._subject.asked
        }
        return list(networks.values())

    def _first_start(self) -> Component:
        served = self._served() if self._session.parameters.from_active else []
        usable = [component for component in served if Path(component.path).is_file()]
        if served and not usable:
            self._place.journal.tell(
                start=f"{served[0].name}, which is served, is no longer on this machine; the "
                "training starts from the base network instead."
            )
        return usable[0] if usable else self._subject.base

    def _build(self, keep: Keep) -> Dataset:
        settings, project = self._settings, self._session.project
        label_studio = label_studio_of(settings, self._projects, project)
        builder = DatasetBuilder(
            fetcher=build_fetcher(settings),
            decode=build_decoder(settings),
            ledger=AnnotationLedger(self._database),
            splits=Splits(self._database),
            count=self._count,
            authors=PredictionAuthors(
                project,
                self._subject.target.names,
                Releases(self._database),
                label_studio.prediction_version if label_studio else None,
            ),
            keep=keep,
            on_task=lambda _done, _total: self._bench.go_on(),
        )
        access = access_of(settings, self._projects, project)
        dataset = builder.build(project, self._subject.target, self._subject.options, access)
        # frozen with it: what the label config asks for may be another by the time it is published
        return replace(
            dataset, manifest={**dataset.manifest, "base_requested": self._subject.asked}
        )

    def _count(self, image: Image) -> int:
        self._bench.go_on()
        return len(self._bench.segment(image, self._subject.base).scores)
