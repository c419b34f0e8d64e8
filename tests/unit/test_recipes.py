"""Defaults per architecture, and parameters that cannot be."""

from __future__ import annotations

import pytest

from ml_backend.errors import TrainingError
from ml_backend.learning import TrainingParameters
from ml_backend.model_files.architectures import DINO_VITB, DINO_VITL, RESIDUAL_UNET, SAM_VITL
from ml_backend.recipes import recipe_for


@pytest.mark.parametrize("architecture", [RESIDUAL_UNET, SAM_VITL, DINO_VITL, DINO_VITB])
def test_every_network_that_is_served_has_defaults(architecture: str) -> None:
    recipe = recipe_for(architecture, TrainingParameters(), images=5)
    assert recipe.steps == recipe.n_epochs * recipe.steps_per_epoch
    assert recipe.steps >= 500


def test_transformers_get_what_cellpose_recommends() -> None:
    recipe = recipe_for(SAM_VITL, TrainingParameters(), images=30)
    assert (recipe.learning_rate, recipe.weight_decay) == (1e-5, 0.1)
    assert (recipe.n_epochs, recipe.batch_size, recipe.crop) == (100, 1, 256)
    assert recipe_for(DINO_VITB, TrainingParameters(), images=30).crop == 384


def test_more_images_make_longer_epochs_up_to_a_limit() -> None:
    samples = [
        recipe_for(RESIDUAL_UNET, TrainingParameters(), images=count).n_samples
        for count in (1, 4, 50, 100, 10_000)
    ]
    assert samples == sorted(samples)
    assert samples[1] < samples[2]
    assert samples[-1] == 1600


def test_what_is_given_is_taken() -> None:
    given = TrainingParameters(n_epochs=3, learning_rate=0.5, n_samples=10, batch_size=4, crop=96)
    recipe = recipe_for(RESIDUAL_UNET, given, images=4)
    assert (recipe.n_epochs, recipe.learning_rate, recipe.crop) == (3, 0.5, 96)
    assert recipe.steps == 9


@pytest.mark.parametrize(
    ("architecture", "parameters"),
    [
        (RESIDUAL_UNET, TrainingParameters(n_epochs=0)),
        (RESIDUAL_UNET, TrainingParameters(learning_rate=0.0)),
        (RESIDUAL_UNET, TrainingParameters(learning_rate=float("nan"))),
        (RESIDUAL_UNET, TrainingParameters(weight_decay=-1.0)),
        (RESIDUAL_UNET, TrainingParameters(crop=100)),
        (RESIDUAL_UNET, TrainingParameters(max_minutes=0.0)),
        (RESIDUAL_UNET, TrainingParameters(lora_rank=4)),
        (SAM_VITL, TrainingParameters(crop=128)),
        (SAM_VITL, TrainingParameters(lora_rank=-1)),
        ("unknown", TrainingParameters()),
    ],
)
def test_impossible_parameters_are_refused(
    architecture: str, parameters: TrainingParameters
) -> None:
    with pytest.raises(TrainingError):
        recipe_for(architecture, parameters, images=4)
