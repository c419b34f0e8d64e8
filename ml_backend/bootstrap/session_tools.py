"""What a training session works with, made from the settings and the records."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from ml_backend import __version__
from ml_backend.bootstrap.classification_tools import classify_on
from ml_backend.bootstrap.images import build_decoder, build_fetcher
from ml_backend.bootstrap.label_studio import access_of, label_studio_of
from ml_backend.bootstrap.learning import default_models, learning_defaults
from ml_backend.bootstrap.networks import resolver
from ml_backend.bootstrap.training import models_folder
from ml_backend.domain import Component, Image, Priority, Segmenter
from ml_backend.engines.catalogue import file_sha256
from ml_backend.engines.cellpose import open_segmenter
from ml_backend.engines.device_profile import open_device
from ml_backend.engines.networks import load_network
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
from ml_backend.learning import EpochPoint, LearningOptions, Lease, Session
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
from ml_backend.training.annotated_image import AnnotatedImage
from ml_backend.training.dataset import Dataset, DatasetBuilder
from ml_backend.training.fine_tuned import FineTuned
from ml_backend.training.folders import DATASET
from ml_backend.training.frozen_dataset import FrozenDataset, Keep
from ml_backend.training.gate import judge
from ml_backend.training.interruption import Interruption
from ml_backend.training.outcome import Outcome
from ml_backend.training.prediction_authors import PredictionAuthors
from ml_backend.training.progress import Progress
from ml_backend.training.publishing import Publisher
from ml_backend.training.scoring import ImageScore, score
from ml_backend.training.segmentation import fine_tune
from ml_backend.training.session import SessionRun, SessionTools
from ml_backend.training.session_log import SessionLog

# Medians of single images that differ more: no one scale fits all, for crops are drawn at 0.65 to
# 1.35 times the network's own.
LARGEST_SPREAD = 2.5
SCORING_PATIENCE_S = 4.0  # of the ten until a process that was told to go is killed
LIBRARIES = ("torch", "cellpose", "numpy", "safetensors")


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
) -> Outcome:
    """Run a session in this process; see `training.outcome.guarded` for what it raises."""
    device = open_device(settings.training_device or settings.device)
    threads = settings.training_threads
    take_second_place(device, threads=threads, gpu_share=settings.training_gpu_share)
    journal = SessionLog(Sessions(database), lease, session)
    project, found = find_subject(database, session)
    if isinstance(found, ChoicesTarget):
        return classify_on(
            settings,
            database,
            session,
            found,
            project.label_config,
            journal=journal,
            interruption=interruption,
            folder=folder,
            device=device,
        )
    with open_segmenter(
        device, max_networks=settings.max_networks, flow_cache_mb=settings.flow_cache_mb
    ) as segmenter:
        workshop = Workshop(
            settings, database, session, journal, interruption, folder, device, segmenter
        )
        return SessionRun(
            session,
            workshop.tools(),
            journal=journal,
            interruption=interruption,
            folder=folder,
        ).run()


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

    def __init__(
        self,
        settings: Settings,
        database: Database,
        session: Session,
        journal: SessionLog,
        interruption: Interruption,
        folder: Path,
        device: torch.device,
        segmenter: Segmenter,
    ) -> None:
        """Keep the collaborators, and read what the session is about.

        Raises:
            TrainingError, ModelError, StoreError: as `tools`.
        """
        self._settings, self._database, self._session = settings, database, session
        self._interruption, self._device, self._segmenter = interruption, device, segmenter
        self._journal, self._frozen = journal, FrozenDataset(folder / DATASET)
        self._projects, self._versions = Projects(database), Versions(database)
        self._subject = self._read_subject()
        self._first = self._subject.target.teachers[0]  # its options decide what is served

    def tools(self) -> SessionTools:
        """Return the tools.

        Raises:
            TrainingError: the label config has changed so that there is nothing to train.
            ModelError: the base network is not on this machine.
            StoreError
        """
        subject, session, journal = self._subject, self._session, self._journal
        start = self._frozen.start() or self._first_start()
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
            train=self._train,
            score=self._score,
            component_of=_component_of,
            judge=judge,
            promotion=subject.options.promotion,
            publisher=Publisher(models_folder(self._settings)),
            versions=self._versions,
            facts={
                "project": str(session.project),
                "parameters": session.parameters.canonical(),
                "libraries": {
                    "label-studio-cell-backend": __version__,
                    **{name: importlib.metadata.version(name) for name in LIBRARIES},
                },
                "device": str(self._device),
            },
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
        return resolver(self._settings, str(self._device))(requested)

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
            self._journal.tell(
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
            on_task=lambda _done, _total: self._go_on(),
        )
        access = access_of(settings, self._projects, project)
        dataset = builder.build(project, self._subject.target, self._subject.options, access)
        # frozen with it: what the label config asks for may be another by the time it is published
        return replace(
            dataset, manifest={**dataset.manifest, "base_requested": self._subject.asked}
        )

    def _count(self, image: Image) -> int:
        self._go_on()
        found = self._segmenter.segment(
            image,
            self._first.segmentation,
            component=self._subject.base,
            priority=Priority.BACKGROUND,
        )
        return len(found.scoring_at_least(self._first.score_threshold).scores)

    def _go_on(self, *, patience_s: float = 0.0) -> None:
        """Break off where that is wanted; else tell that another task or image has its turn."""
        self._interruption.check(patience_s=patience_s)
        self._journal.part()

    def _score(self, component: Component, images: Sequence[AnnotatedImage]) -> list[ImageScore]:
        return score(
            self._segmenter,
            component,
            images,
            self._first.segmentation,
            score_threshold=self._first.score_threshold,
            # in the middle of a training, breaking off loses what came after its checkpoint
            on_image=lambda _done: self._go_on(patience_s=SCORING_PATIENCE_S),
        )

    def _train(
        self,
        start: Component,
        dataset: Dataset,
        *,
        folder: Path,
        on_epoch: Callable[[EpochPoint], None],
        on_step: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        score: Callable[[Path, float | None], tuple[float, float, float]] | None,
    ) -> FineTuned:
        return fine_tune(
            load_network(start, torch.device("cpu")),
            component=start,
            training=dataset.training,
            hold_out=dataset.hold_out,
            diameter=dataset.diameter or 0.0,
            per_image_scale=dataset.diameter_spread > LARGEST_SPREAD,
            parameters=self._session.parameters,
            options=self._first.segmentation,
            folder=folder,
            device=self._device,
            on_epoch=on_epoch,
            on_step=on_step,
            should_stop=should_stop,
            score=score,
        )


def _component_of(weights: Path, start: Component, diameter: float | None) -> Component:
    """Return the network in training as a network that can be scored."""
    return Component(
        name="candidate",
        architecture=start.architecture,
        sha256=file_sha256(weights),
        path=str(weights),
        licence=start.licence,
        diameter=diameter,
    )
