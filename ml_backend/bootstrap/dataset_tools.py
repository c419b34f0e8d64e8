"""What a session about a dataset in files works with, made from the settings and the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from ml_backend.bootstrap.dataset_archives import close_dataset, open_dataset
from ml_backend.bootstrap.images import build_decoder
from ml_backend.bootstrap.networks import resolver
from ml_backend.bootstrap.training import models_folder
from ml_backend.bootstrap.training_bench import TrainingBench, component_of
from ml_backend.bootstrap.workplace import Workplace
from ml_backend.datasets import StoredDataset
from ml_backend.domain import Component, SegmentationOptions, Segmenter
from ml_backend.errors import TrainingError
from ml_backend.learning import Promotion
from ml_backend.model_files.version_folders import Publisher
from ml_backend.service.curves import curves_picture
from ml_backend.store.datasets import Datasets
from ml_backend.store.sessions import Sessions
from ml_backend.store.splits import Splits
from ml_backend.store.versions import Versions
from ml_backend.training.dataset import Dataset
from ml_backend.training.dataset_verdict import judge_for_dataset
from ml_backend.training.folder_dataset import FolderDataset
from ml_backend.training.folders import DATASET
from ml_backend.training.frozen_dataset import FrozenDataset, Keep
from ml_backend.training.session import SessionTools

CURVES = "curves.png"  # in the folder of a version that was trained on a dataset
MEGAPIXEL = 1_000_000


class DatasetWorkshop:
    """Makes the tools of one session."""

    def __init__(self, place: Workplace, segmenter: Segmenter) -> None:
        """Keep the collaborators."""
        self._place = place
        self._settings, self._database, self._session = (
            place.settings,
            place.database,
            place.session,
        )
        self._frozen = FrozenDataset(place.folder / DATASET)
        self._bench = TrainingBench(
            place=place,
            segmenter=segmenter,
            options=SegmentationOptions(clahe=bool(place.session.parameters.clahe)),
        )

    def tools(self) -> SessionTools:
        """Return the tools.

        Raises:
            TrainingError: there is no such dataset, or nothing to go on from.
            ModelError: the model to start from is not on this machine.
            StoreError
        """
        base = self._base()
        start = self._frozen.start() or self._place.restarted(base) or base
        return SessionTools(
            dataset=partial(
                self._frozen.load_or,
                self._build,
                start,
                tell=lambda dataset: self._place.journal.tell(**dataset.report),
            ),
            base=base,
            start=start,
            served=_nothing,
            train=self._bench.train,
            score=self._bench.score,
            component_of=component_of,
            judge=judge_for_dataset,
            promotion=Promotion.NEVER,
            publisher=Publisher(models_folder(self._settings)),
            versions=Versions(self._database),
            facts={**self._bench.facts(), "dataset": self._session.dataset},
            pictures=self._pictures,
        )

    def _base(self) -> Component:
        requested = self._session.base or self._settings.model
        return resolver(self._settings, str(self._place.device), self._database)(requested)

    def _build(self, keep: Keep) -> Dataset:
        builder = FolderDataset(
            decode=build_decoder(self._settings),
            splits=Splits(self._database),
            max_pixels=self._settings.max_image_megapixels * MEGAPIXEL,
            keep=keep,
            on_image=self._bench.go_on,
        )
        stored = self._stored()
        found = open_dataset(
            self._settings, stored.source, self._place.folder, on_file=self._bench.go_on
        )
        try:
            return builder.build(stored, found, self._session.parameters)
        finally:
            close_dataset(self._place.folder)

    def _stored(self) -> StoredDataset:
        stored = Datasets(self._database).by_key(self._session.project)
        if stored is None:
            raise TrainingError(
                f"The dataset {self._session.dataset!r} is no longer in the records; start a new "
                "session with its folder."
            )
        return stored

    def _pictures(self) -> Mapping[str, bytes]:
        session = self._session
        title = " · ".join(filter(None, (f"Session {session.id}", session.dataset, session.label)))
        points = Sessions(self._database).curve(session.id)
        return {CURVES: curves_picture(points, title=title)}


def _nothing() -> Sequence[Component]:
    return ()
