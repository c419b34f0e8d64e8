"""The fine-tuning of a segmentation network: annotated images in, the best weights out.

Everything it has done lies in its folder: prepared images with their flows, the last checkpoint,
the best weights so far. Called again with the same folder, it goes on where it was; on a CPU to
the same bits. All crops of a step are learned from at once, in pieces where memory is short.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import nn

from ml_backend.domain import Component, SegmentationOptions
from ml_backend.engines.served_network import traits_of
from ml_backend.learning import EpochPoint, TrainingParameters
from ml_backend.recipes import recipe_for
from ml_backend.training.annotated_image import AnnotatedImage
from ml_backend.training.fine_tuned import FineTuned
from ml_backend.training.fine_tuning import FineTuning, Pixels, Score
from ml_backend.training.learned_weights import learn
from ml_backend.training.prepared_image import Preparation
from ml_backend.training.progress import Progress

PREPARED: Final = "prepared"


def fine_tune(
    network: nn.Module,
    *,
    component: Component,
    training: Sequence[AnnotatedImage],
    hold_out: Sequence[AnnotatedImage],
    diameter: float,
    per_image_scale: bool,
    parameters: TrainingParameters,
    options: SegmentationOptions,
    folder: Path,
    device: torch.device,
    on_epoch: Callable[[EpochPoint], None],
    on_step: Callable[[Progress], None],
    should_stop: Callable[[], bool],
    score: Score | None,
    pixels: Pixels | None = None,
    keeps_whole: bool = False,
    precision: str | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> FineTuned:
    """Return `network` fine-tuned on `training`, going on from what lies in `folder`.

    Args:
        network: float32 on the CPU, as `engines.networks.load_network` returns it; it is changed.
        component: what the network is; adapters name its file as their base.
        training: images with their instances, some perhaps empty.
        hold_out: never learned from; losses are measured on them.
        diameter: of the objects, image pixels.
        per_image_scale: sizes differ so much that each image is resized by its own objects, and
            prediction has to estimate them.
        parameters: None in a field = the network's default. `max_minutes` is for the steps alone:
            preparing images and scoring do not count.
        options: of the prediction; says whether contrast is equalised first.
        folder: of the session; outlives the process.
        device: where to train.
        on_epoch: is told of each epoch.
        on_step: is told of each image prepared and each step.
        should_stop: is asked before each of them.
        score: returns AP at 0.5, 0.75 and 0.9 on the hold-out for a weights file, which is removed
            afterwards, at the diameter (image pixels, None = estimated per image) that it would be
            served at; None = the validation loss decides what is best.
        pixels: returns how well the pixels of objects are found on a test set, for the same; it
            decides nothing.
        keeps_whole: store the whole network where adapters are trained: its base will not stay.
        precision: a key of `precision.FORMATS`; None = what is fastest here, tried once a session.
        clock: seconds since any moment.

    Raises:
        TrainingError: there is nothing to learn from, a parameter is wrong, the numbers ran away.
        OutOfMemory: a single crop does not fit.
        OSError: the disk is full or cannot be written.
    """
    least = parameters.min_train_masks
    counts = [int(image.labels.max(initial=0)) for image in training]
    used = [image for image, count in zip(training, counts, strict=True) if not 0 < count < least]
    recipe = recipe_for(component.architecture, parameters, images=len(used))
    traits = traits_of(network, component.architecture)
    known = diameter if diameter > 0 and not per_image_scale else None
    how = Preparation(
        traits=traits,
        diameter=known,
        rescale=recipe.rescale,
        clahe=options.clahe if parameters.clahe is None else parameters.clahe,
        contact_weight=recipe.contact_weight,
        folder=folder / PREPARED,
        device=device,
    )
    tuning = FineTuning(
        learn(
            network,
            component,
            lora_rank=recipe.lora_rank,
            seed=recipe.seed,
            keeps_whole=keeps_whole,
        ),
        recipe,
        # without a diameter of its own, a network bound to a scale would have it estimated
        diameter=known if recipe.rescale else traits.diameter,
        folder=folder,
        device=device,
        on_epoch=on_epoch,
        on_step=on_step,
        should_stop=should_stop,
        score=score,
        pixels=pixels,
        precision=precision,
        clock=clock,
    )
    if len(used) < len(training):
        tuning.state.note(
            f"{len(training) - len(used)} images with fewer than {least} objects were left out."
        )
    return tuning.run(used, hold_out, how)
