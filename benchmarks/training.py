"""Crops learned from per second: our fine-tuning loop against `cellpose.train.train_seg`.

    PYTHONPATH=. python benchmarks/training.py [--architecture sam-vitl] [--steps 30] [--rounds 3]

Same network, images, batch, crop size, threads and machine, by turns in one run. Timed is what lies
between the first and the last forward pass of a round, so that neither reading images, nor flows,
nor writing weights counts. On a shared machine the processor's time says more than the clock's.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from cellpose import train, vit
from image_sets import Annotated, nuclei
from torch import nn

from ml_backend.domain import Component, SegmentationOptions
from ml_backend.engines.catalogue import RESIDUAL_UNET, SAM_VITL, resolve_component
from ml_backend.engines.networks import load_network
from ml_backend.engines.scale import median_diameter
from ml_backend.learning import Side, TrainingParameters
from ml_backend.recipes import recipe_for
from ml_backend.training.annotated_image import AnnotatedImage
from ml_backend.training.segmentation import fine_tune

EDGE = 256  # pixels, of the images


@dataclass
class Clock:
    """Notes when a network in training is given a batch."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def watch(self, network: nn.Module) -> None:
        """Note every forward pass of `network`."""
        network.register_forward_pre_hook(self._note)

    def _note(self, network: nn.Module, _: Any) -> None:
        if network.training:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.wall.append(time.perf_counter())
            self.processor.append(time.process_time())

    def samples_per_s(self, batch: int, times: list[float]) -> float:
        """Return crops per second between the third forward pass and the last."""
        return batch * (len(times) - 3) / (times[-1] - times[2])


def main() -> None:
    """Measure both by turns and print a table."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--architecture", choices=[RESIDUAL_UNET, SAM_VITL], default=RESIDUAL_UNET)
    options.add_argument("--steps", type=int, default=30)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--batch", type=int, help="default: the architecture's own")
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = options.parse_args()
    device = torch.device(given.device)
    network, component = open_network(given.architecture)
    parameters = TrainingParameters(batch_size=given.batch)
    recipe = recipe_for(given.architecture, parameters, images=1)
    images = nuclei(EDGE, 4)
    print(
        f"{given.architecture} on {device}, {torch.get_num_threads()} threads, {len(images)} images"
        f" of {EDGE} px, batches of {recipe.batch_size} crops of {recipe.crop} px"
    )
    results: dict[str, list[tuple[float, float]]] = {"ours": [], "train_seg": []}
    for _ in range(given.rounds):
        for name, learn in (("train_seg", learn_theirs), ("ours", learn_ours)):
            clock, copied = Clock(), copy.deepcopy(network)
            clock.watch(copied)
            learn(copied, component, images, given.steps, recipe.batch_size, recipe.crop, device)
            batch = recipe.batch_size
            found = (
                clock.samples_per_s(batch, clock.wall),
                clock.samples_per_s(batch, clock.processor),
            )
            results[name].append(found)
            print(f"{name:10} {found[0]:7.2f} crops/s, {found[1]:7.2f} per processor second")
    for index, clock_name in ((0, "clock"), (1, "processor")):
        ours, theirs = (median(row[index] for row in results[n]) for n in ("ours", "train_seg"))
        print(
            f"{clock_name}: ours {ours:.2f}, train_seg {theirs:.2f} crops/s: {ours / theirs:.2f}x"
        )


def open_network(architecture: str) -> tuple[nn.Module, Component]:
    """Return the built-in network, or Cellpose-SAM's architecture with random weights."""
    if architecture == RESIDUAL_UNET:
        component = resolve_component("auto", models_dir=Path("none"), cuda=False)
        return load_network(component, torch.device("cpu")), component
    torch.manual_seed(0)
    return vit.CPSAM(), Component(
        name="random", architecture=SAM_VITL, sha256="0" * 64, path="", licence="none"
    )


def learn_ours(
    network: nn.Module,
    component: Component,
    images: list[Annotated],
    steps: int,
    batch: int,
    crop: int,
    device: torch.device,
) -> None:
    """Run our loop for `steps` steps."""
    annotated = [
        AnnotatedImage(
            task_id=number,
            annotation_ids=(number,),
            group=str(number),
            side=Side.TRAINING,
            image=one.image,
            labels=one.truth,
        )
        for number, one in enumerate(images)
    ]
    with tempfile.TemporaryDirectory() as folder:
        fine_tune(
            network,
            component=component,
            training=annotated,
            hold_out=[],
            diameter=median_diameter(images[0].truth),
            per_image_scale=False,
            parameters=TrainingParameters(
                n_epochs=1, n_samples=steps * batch, batch_size=batch, crop=crop
            ),
            options=SegmentationOptions(),
            folder=Path(folder),
            device=device,
            on_epoch=lambda _: None,
            on_step=lambda _: None,
            should_stop=lambda: False,
            score=None,
        )


def learn_theirs(
    network: nn.Module,
    _: Component,
    images: list[Annotated],
    steps: int,
    batch: int,
    crop: int,
    device: torch.device,
) -> None:
    """Run Cellpose's loop for `steps` steps; nothing is saved."""
    network.save_model = lambda _: None  # type: ignore[assignment]
    network.to(device)
    for name, weight in network.named_parameters():
        weight.requires_grad_(name not in ("W2", "diam_mean", "diam_labels"))
    with tempfile.TemporaryDirectory() as folder:
        train.train_seg(
            network,
            train_data=[one.image.pixels.transpose(2, 0, 1) for one in images],
            train_labels=[one.truth.copy() for one in images],
            channel_axis=0,
            batch_size=batch,
            bsize=crop,
            n_epochs=1,
            nimg_per_epoch=steps * batch,
            learning_rate=1e-5,
            rescale=True,
            scale_range=0.5,
            min_train_masks=1,
            save_path=folder,
            model_name="theirs",
        )


if __name__ == "__main__":
    main()
