"""What every session that fine-tunes a network works with, whatever it learns from."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ml_backend import __version__
from ml_backend.bootstrap.workplace import Workplace
from ml_backend.domain import (
    Component,
    Image,
    Priority,
    Segmentation,
    SegmentationOptions,
    Segmenter,
)
from ml_backend.engines.catalogue import file_sha256
from ml_backend.engines.networks import load_network
from ml_backend.learning import EpochPoint
from ml_backend.training.annotated_image import AnnotatedImage
from ml_backend.training.dataset import Dataset
from ml_backend.training.fine_tuned import FineTuned
from ml_backend.training.pixel_scores import PixelScores
from ml_backend.training.progress import Progress
from ml_backend.training.scoring import ImageScore, score
from ml_backend.training.segmentation import fine_tune

# Medians of single images that differ more: no one scale fits all, for crops are drawn at 0.65 to
# 1.35 times the network's own.
LARGEST_SPREAD = 2.5
SCORING_PATIENCE_S = 4.0  # of the ten until a process that was told to go is killed
LIBRARIES = ("torch", "cellpose", "numpy", "safetensors")


@dataclass(frozen=True, kw_only=True)
class TrainingBench:
    """Trains and scores networks for one session."""

    place: Workplace
    segmenter: Segmenter
    options: SegmentationOptions  # as what is trained will be served
    score_threshold: float = 0.0  # 0..1; objects that score lower are not shown

    def go_on(self, *, patience_s: float = 0.0) -> None:
        """Break off where that is wanted; else tell that another image has its turn.

        Raises:
            Interrupted, SessionLost, StoreError
        """
        self.place.interruption.check(patience_s=patience_s)
        self.place.journal.part()

    def segment(self, image: Image, component: Component) -> Segmentation:
        """Return what a network finds in an image, as it would be shown.

        Raises:
            ModelError, OutOfMemory, EngineError
        """
        return self.segmenter.segment(
            image, self.options, component=component, priority=Priority.BACKGROUND
        ).scoring_at_least(self.score_threshold)

    def score(self, component: Component, images: Sequence[AnnotatedImage]) -> list[ImageScore]:
        """Return how well a network does on each image.

        Raises:
            ModelError, OutOfMemory, EngineError
        """
        return score(
            self.segmenter,
            component,
            images,
            self.options,
            score_threshold=self.score_threshold,
            # in the middle of a training, breaking off loses what came after its checkpoint
            on_image=lambda _done: self.go_on(patience_s=SCORING_PATIENCE_S),
        )

    def train(
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
        """Return a network fine-tuned from `start`; see `training.segmentation.fine_tune`."""
        return fine_tune(
            load_network(start, torch.device("cpu")),
            component=start,
            training=dataset.training,
            hold_out=dataset.hold_out,
            diameter=dataset.diameter or 0.0,
            per_image_scale=dataset.diameter_spread > LARGEST_SPREAD,
            parameters=self.place.session.parameters,
            options=self.options,
            folder=folder,
            device=self.place.device,
            on_epoch=on_epoch,
            on_step=on_step,
            should_stop=should_stop,
            score=score,
            pixels=pixels,
            # what lies in the session's folder leaves with it
            keeps_whole=Path(start.path).is_relative_to(self.place.folder),
        )

    def facts(self) -> Mapping[str, Any]:
        """Return what a version's manifest says of how it was made."""
        session = self.place.session
        return {
            "project": str(session.project),
            "parameters": session.parameters.canonical(),
            # how its masks were made when it was measured
            "segmentation": {
                **{k: v for k, v in self.options.canonical().items() if k != "model"},
                "score_threshold": self.score_threshold,
            },
            "libraries": {
                "label-studio-cell-backend": __version__,
                **{name: importlib.metadata.version(name) for name in LIBRARIES},
            },
            "device": str(self.place.device),
            **({"restarted_from": session.restarted_from} if session.restarted_from else {}),
        }


def component_of(weights: Path, start: Component, diameter: float | None) -> Component:
    """Return the network in training as a network that can be scored."""
    return Component(
        name="candidate",
        architecture=start.architecture,
        sha256=file_sha256(weights),
        path=str(weights),
        licence=start.licence,
        diameter=diameter,
    )
