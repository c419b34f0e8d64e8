"""Small networks and images that a fine-tuning of a second can learn from."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ml_backend.domain import Component, Image, SegmentationOptions
from ml_backend.engines.catalogue import RESIDUAL_UNET
from ml_backend.engines.networks import load_network
from ml_backend.engines.residual_unet import ResidualUNet, ResidualUNetConfig
from ml_backend.learning import EpochPoint, Side, TrainingParameters
from ml_backend.training.annotated_image import AnnotatedImage
from ml_backend.training.fine_tuned import FineTuned
from ml_backend.training.progress import Progress
from ml_backend.training.segmentation import fine_tune

TINY = ResidualUNetConfig(channels=(4, 8), encoder_blocks=(0, 1), decoder_blocks=(1,))
SHORT = TrainingParameters(
    n_epochs=3, n_samples=8, batch_size=4, crop=64, validation_interval=1, learning_rate=0.01
)
CPU = torch.device("cpu")


def discs(task_id: int, *, diameter: float = 20.0, edge: int = 120, count: int = 9) -> Any:
    """Return an annotated image with bright discs on a grid, a little out of place."""
    random = np.random.default_rng(task_id)
    labels = np.zeros((edge, edge), np.int32)
    y, x = np.indices(labels.shape)
    side = round(count**0.5)
    for number in range(count):
        row, column = divmod(number, side)
        place = (np.array([row, column]) + 0.5) * edge / side + random.uniform(-4, 4, 2)
        labels[np.hypot(y - place[0], x - place[1]) < diameter / 2] = number + 1
    pixels = np.clip(40 + 150 * (labels > 0) + random.normal(0, 6, labels.shape), 0, 255)
    return annotated(task_id, pixels.astype(np.uint8)[..., None], labels)


def annotated(task_id: int, pixels: Any, labels: Any, **fields: Any) -> AnnotatedImage:
    """Return an annotated image of task `task_id`."""
    digest = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()
    return AnnotatedImage(
        task_id=task_id,
        annotation_ids=(task_id,),
        group=str(task_id),
        side=Side.TRAINING,
        image=Image(pixels=pixels, sha256=digest),
        labels=labels,
        **fields,
    )


def save_network(folder: Path, config: ResidualUNetConfig = TINY, seed: int = 0) -> Component:
    """Save a small built-in network with random weights; return what it is."""
    torch.manual_seed(seed)
    path = folder / f"tiny-{seed}.safetensors"
    metadata = {"config": json.dumps(config.to_json())}
    save_file(ResidualUNet(config).state_dict(), str(path), metadata=metadata)
    return component_of(path, RESIDUAL_UNET)


def component_of(path: Path, architecture: str) -> Component:
    """Return the component of a weights file."""
    return Component(
        name=path.stem,
        architecture=architecture,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        path=str(path),
        licence="CC0-1.0",
    )


@dataclass
class Watched:
    """Calls `fine_tune` with sensible arguments and keeps what it tells."""

    folder: Path
    component: Component
    network: nn.Module | None = None  # None = as the component's file says
    points: list[EpochPoint] = field(default_factory=list)
    steps: list[Progress] = field(default_factory=list)
    on_step: Callable[[Progress], None] = lambda _: None  # is told as well
    keeps_whole: bool = False

    def run(
        self,
        training: list[AnnotatedImage],
        hold_out: list[AnnotatedImage] = (),  # type: ignore[assignment]
        *,
        parameters: TrainingParameters = SHORT,
        should_stop: Callable[[], bool] = lambda: False,
        score: Callable[[Path, float | None], tuple[float, float, float]] | None = None,
        diameter: float = 20.0,
        per_image_scale: bool = False,
        options: SegmentationOptions = SegmentationOptions(),  # noqa: B008
        precision: str | None = "float32",
        clock: Callable[[], float] = time.monotonic,
    ) -> FineTuned:
        """Fine-tune in `folder`."""
        return fine_tune(
            self.network or load_network(self.component, CPU),
            component=self.component,
            training=training,
            hold_out=hold_out,
            diameter=diameter,
            per_image_scale=per_image_scale,
            parameters=parameters,
            options=options,
            folder=self.folder,
            device=CPU,
            on_epoch=self.points.append,
            on_step=self._on_step,
            should_stop=should_stop,
            score=score,
            keeps_whole=self.keeps_whole,
            precision=precision,
            clock=clock,
        )

    def _on_step(self, progress: Progress) -> None:
        self.steps.append(progress)
        self.on_step(progress)


class StopsAfter:
    """A wish to stop that comes after so many training steps."""

    def __init__(self, watched: Watched, steps: int) -> None:
        self._watched, self._steps = watched, steps

    def __call__(self) -> bool:
        return sum(one.phase == "training" for one in self._watched.steps) >= self._steps


class OutOfMemoryAbove(nn.Module):
    """A network that has memory for so many crops and no more."""

    def __init__(self, inner: nn.Module, most: int) -> None:
        super().__init__()
        self.inner, self.most = inner, most
        self.tried: list[int] = []

    def forward(self, x: Tensor) -> Any:
        """As the inner network."""
        self.tried.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.inner(x)
