"""What a network is fine-tuned with where nobody says otherwise, per architecture, as measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Final, TypeVar

from ml_backend.errors import TrainingError
from ml_backend.learning import TrainingParameters
from ml_backend.model_files.architectures import DINO_VITB, DINO_VITL, RESIDUAL_UNET, SAM_VITL

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides how a network is fine-tuned; no field is left open."""

    n_epochs: int
    learning_rate: float  # the highest, after the warm-up
    weight_decay: float  # of weights with two or more axes; biases and norms have none
    batch_size: int  # crops per step
    n_samples: int  # crops per epoch
    crop: int  # edge of a crop, network pixels
    validation_interval: int  # epochs between scores on the hold-out
    patience: int  # scores without a rise before it stops early
    max_minutes: float | None  # in steps; the schedule is shortened to end with it
    lora_rank: int  # 0 = all weights are trained
    rescale: bool  # objects get the network's diameter
    seed: int
    scale_range: float  # crops are scaled by 1 - range / 2 to 1 + range / 2, as in Cellpose
    look: float  # strength of changes of contrast, brightness, blur and noise; 0 = none
    contact_weight: float  # extra weight in the loss where two objects touch
    frame: float  # at most so many pixels of a crop lie beyond the image's border
    clip_norm: float  # of the gradient

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of optimiser steps in an epoch."""
        return math.ceil(self.n_samples / self.batch_size)

    @property
    def steps(self) -> int:
        """Return the number of optimiser steps in all epochs."""
        return self.n_epochs * self.steps_per_epoch


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What an architecture is fine-tuned with where nobody says otherwise."""

    n_epochs: int
    learning_rate: float
    weight_decay: float
    batch_size: int
    samples_per_image: int  # crops per epoch are so many, but at least and at most:
    least_samples: int
    most_samples: int
    crop: int
    validation_interval: int
    patience: int
    look: float
    contact_weight: float
    frame: float
    scale_range: float


# Measured on phase contrast, which the built-in network had never seen, with three training images:
# 1200 steps, of about 0.35 s of one core each, give an AP at 0.5 of 0.94 on the held-out image and
# of 0.73 on two others; see docs/performance.md.
_BUILT_IN: Final = Defaults(
    n_epochs=60,
    learning_rate=2e-3,
    weight_decay=0.01,
    batch_size=8,
    samples_per_image=8,
    least_samples=160,
    most_samples=1600,
    crop=128,
    validation_interval=10,
    patience=5,
    look=0.5,
    contact_weight=3.0,
    frame=28.0,
    scale_range=0.7,
)
# What Cellpose recommends for its transformers: AdamW, 1e-5, 0.1, 100 epochs, batches of one.
_TRANSFORMER: Final = Defaults(
    n_epochs=100,
    learning_rate=1e-5,
    weight_decay=0.1,
    batch_size=1,
    samples_per_image=1,
    least_samples=8,
    most_samples=800,
    crop=256,
    validation_interval=10,
    patience=5,
    look=0.0,
    contact_weight=0.0,
    frame=0.0,
    scale_range=0.5,
)
# DINO's networks take larger crops than SAM's.
_DINO: Final = replace(_TRANSFORMER, crop=384)
DEFAULTS: Final[Mapping[str, Defaults]] = {
    RESIDUAL_UNET: _BUILT_IN,
    SAM_VITL: _TRANSFORMER,
    DINO_VITL: _DINO,
    DINO_VITB: _DINO,
}
"""By architecture; others cannot be fine-tuned."""

ADAPTER_LEARNING_RATE: Final = 3e-4  # adapters start at zero and are few: they need larger steps
CLIP_NORM: Final = 1.0
SMALLEST_CROP: Final = 64


def recipe_for(architecture: str, parameters: TrainingParameters, *, images: int) -> Recipe:
    """Return `parameters` with the defaults of `architecture` where they are left open.

    Args:
        architecture: of the network, as in `Component`.
        parameters: None in a field = the default.
        images: number of training images.

    Raises:
        TrainingError: a parameter is out of its range.
    """
    defaults = _defaults_of(architecture)
    lora_rank = parameters.lora_rank
    if lora_rank and architecture == RESIDUAL_UNET:
        raise TrainingError(
            "The built-in network has no attention to put adapters on; leave lora_rank "
            "(model_lora_rank) away."
        )
    samples = images * defaults.samples_per_image
    samples = min(max(samples, defaults.least_samples), defaults.most_samples)
    rate = defaults.learning_rate if not lora_rank else ADAPTER_LEARNING_RATE
    recipe = Recipe(
        n_epochs=_or(parameters.n_epochs, defaults.n_epochs),
        learning_rate=_or(parameters.learning_rate, rate),
        weight_decay=_or(parameters.weight_decay, defaults.weight_decay),
        batch_size=_or(parameters.batch_size, defaults.batch_size),
        n_samples=_or(parameters.n_samples, samples),
        crop=_or(parameters.crop, defaults.crop),
        validation_interval=_or(parameters.validation_interval, defaults.validation_interval),
        patience=_or(parameters.patience, defaults.patience),
        max_minutes=parameters.max_minutes,
        lora_rank=lora_rank,
        rescale=parameters.rescale,
        seed=parameters.seed,
        scale_range=defaults.scale_range,
        look=defaults.look,
        contact_weight=defaults.contact_weight,
        frame=defaults.frame,
        clip_norm=CLIP_NORM,
    )
    _check(recipe, architecture, defaults.crop)
    return recipe


def _or(value: Number | None, default: Number) -> Number:
    return default if value is None else value


def _defaults_of(architecture: str) -> Defaults:
    if architecture not in DEFAULTS:
        raise TrainingError(
            f"Networks of the architecture {architecture!r} cannot be fine-tuned; choose one of "
            f"{', '.join(DEFAULTS)}."
        )
    return DEFAULTS[architecture]


def _check(recipe: Recipe, architecture: str, crop: int) -> None:
    positive = ("n_epochs", "batch_size", "n_samples", "validation_interval", "patience")
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        if field.name in positive and value < 1:
            raise TrainingError(f"{field.name} is {value}; it must be at least 1.")
        if isinstance(value, float) and not math.isfinite(value):
            raise TrainingError(f"{field.name} is {value}; it must be a finite number.")
    if recipe.learning_rate <= 0 or recipe.weight_decay < 0 or recipe.lora_rank < 0:
        raise TrainingError(
            "The learning rate must be above 0, the weight decay and the rank of adapters at least "
            f"0; they are {recipe.learning_rate}, {recipe.weight_decay} and {recipe.lora_rank}."
        )
    if recipe.max_minutes is not None and recipe.max_minutes <= 0:
        raise TrainingError(f"The training minutes are {recipe.max_minutes}; give more than 0.")
    if architecture != RESIDUAL_UNET and recipe.crop != crop:
        raise TrainingError(
            f"This network takes crops of {crop} pixels and no others; leave `crop` away."
        )
    if architecture == RESIDUAL_UNET and (recipe.crop % 16 or recipe.crop < SMALLEST_CROP):
        raise TrainingError(
            f"The crop of {recipe.crop} pixels must be a multiple of 16, {SMALLEST_CROP} or more."
        )
