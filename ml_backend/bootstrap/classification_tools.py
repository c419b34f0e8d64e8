"""What a session that learns classes works with, made from the settings and the records."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ml_backend import __version__
from ml_backend.bootstrap.embeddings import (
    find_embedder,
    open_embedding_cache,
    project_embedder,
)
from ml_backend.bootstrap.images import build_decoder, build_fetcher
from ml_backend.bootstrap.label_studio import access_of, label_studio_of
from ml_backend.bootstrap.learning import default_models, learning_defaults
from ml_backend.bootstrap.training import models_folder
from ml_backend.bootstrap.workplace import Workplace
from ml_backend.engines import descriptors
from ml_backend.engines.classifier import Classifier
from ml_backend.engines.classifier_file import from_file
from ml_backend.engines.embedder_catalogue import DESCRIPTORS
from ml_backend.engines.embedding import open_embedder
from ml_backend.engines.image_embeddings import (
    ImageEmbeddings,
)
from ml_backend.errors import LabelStudioError, ModelError
from ml_backend.labelstudio.learning_options import read_learning_options
from ml_backend.labelstudio.targets import ChoicesTarget, asked_by
from ml_backend.learning import LearningOptions
from ml_backend.model_files.version_folders import Publisher
from ml_backend.service.project_pictures import project_pictures
from ml_backend.store.annotations import AnnotationLedger
from ml_backend.store.projects import Projects
from ml_backend.store.splits import Splits
from ml_backend.store.versions import Versions
from ml_backend.training.choices_dataset import ChoicesDatasetBuilder
from ml_backend.training.chosen_images import ChoicesDataset
from ml_backend.training.classification import (
    ClassificationRun,
    ClassificationTools,
    Clustered,
)
from ml_backend.training.outcome import Outcome
from ml_backend.training.project_images import ProjectImages

LIBRARIES = ("numpy", "scikit-learn", "safetensors")

FloatArray = npt.NDArray[np.float32]


def classify_at(place: Workplace, target: ChoicesTarget, label_config: str) -> Outcome:
    """Run a session that learns classes; see `training.outcome.guarded` for what it raises."""
    return ClassificationRun(
        place.session,
        ClassificationWorkshop(place, target, label_config).tools(),
        journal=place.journal,
        interruption=place.interruption,
        folder=place.folder,
    ).run()


class ClassificationWorkshop:
    """Makes the tools of one session."""

    def __init__(self, place: Workplace, target: ChoicesTarget, label_config: str) -> None:
        """Keep the collaborators, and open the embedder.

        Raises:
            ModelError: it is not on this machine.
        """
        settings, database, session = place.settings, place.database, place.session
        self._settings, self._database, self._session = settings, database, session
        self._target, self._journal, self._interruption = target, place.journal, place.interruption
        self._projects, self._versions = Projects(database), Versions(database)
        self._asked = asked_by(target.controls[0], default_models(settings))
        self._embedder = find_embedder(settings, database, target)
        self._embeddings = ImageEmbeddings(
            open_embedder(self._embedder, place.device), open_embedding_cache(settings)
        )
        self._project_embedder = project_embedder(
            settings,
            self._projects,
            session.project,
            target,
            self._embeddings,
            on_task=self._go_on,
        )
        options, _ = read_learning_options(label_config, learning_defaults(settings))
        self._options = LearningOptions(
            policy=options.policy,
            promotion=options.promotion,
            parameters=session.parameters,  # settled when the session was asked for
            roi_label=options.roi_label,
            group_field=options.group_field,
        )

    def tools(self) -> ClassificationTools:
        """Return the tools."""
        session = self._session
        return ClassificationTools(
            controls=self._target.controls,
            embedder=self._embedder,
            embedder_sha256=self._embeddings.embedder.sha256,
            families=descriptors.GROUPS if self._embedder.architecture == DESCRIPTORS else None,
            dataset=self._dataset,
            images=self._images,
            served=lru_cache(self._served),
            draw=self._draw,
            promotion=self._options.promotion,
            publisher=Publisher(models_folder(self._settings)),
            versions=self._versions,
            base_requested=self._asked,
            seed=session.parameters.seed,
            facts={
                "project": str(session.project),
                "embedder_sha256": self._embeddings.embedder.sha256,
                "libraries": {
                    "label-studio-cell-backend": __version__,
                    **{name: importlib.metadata.version(name) for name in LIBRARIES},
                },
            },
        )

    def _dataset(self) -> ChoicesDataset:
        settings, project = self._settings, self._session.project
        builder = ChoicesDatasetBuilder(
            fetcher=build_fetcher(settings),
            decode=build_decoder(settings),
            embed=self._project_embedder,
            ledger=AnnotationLedger(self._database),
            splits=Splits(self._database),
            on_task=self._go_on,
        )
        access = access_of(settings, self._projects, project)
        return builder.build(project, self._target, self._options, access)

    def _images(self, dataset: ChoicesDataset) -> ProjectImages:
        """Embed all images of the project, or those that are labelled where it cannot be asked."""
        label_studio = label_studio_of(self._settings, self._projects, self._session.project)
        # which objects there are, only people have said: those of their annotations
        if label_studio is not None and self._target.shape is None:
            try:
                tasks = list(label_studio.tasks(self._session.project.project_id))
            except LabelStudioError as error:
                self._journal.tell(not_asked=error.message)
            else:
                return self._project_embedder.embed(tasks)
        labelled = [*dataset.training, *dataset.hold_out]
        return ProjectImages(
            items=tuple(image.item for image in labelled),
            embeddings=self._project_embedder.stacked([image.embedding for image in labelled]),
        )

    def _served(self, control: str) -> Classifier | None:
        serving = self._versions.serving(self._session.project).get(control)
        if serving is None or serving.base_requested != self._asked:
            return None
        try:
            classifier = from_file(Path(serving.component.path))
        except ModelError as error:
            self._journal.tell(
                not_compared=f"{serving.component.name} is served for {control} now, but could "
                f"not be compared: {error.message}"
            )
            return None
        usable = classifier.embedder_sha256 == self._embeddings.embedder.sha256
        return classifier if usable and control in classifier.controls else None

    def _draw(self, clustered: Clustered) -> Mapping[str, bytes]:
        return project_pictures(
            items=clustered.items,
            points=clustered.points,
            clusters=clustered.clusters,
            distances=clustered.distances,
            chosen=clustered.chosen,
            thumbnail=self._project_embedder.image,
            title=f"Project {self._session.project.project_id}, {clustered.control}",
            go_on=self._interruption.check,
        )

    def _go_on(self, done: int, total: int) -> None:
        self._interruption.check()
        self._journal.steps({"step": done, "steps": total})
        self._journal.part()
