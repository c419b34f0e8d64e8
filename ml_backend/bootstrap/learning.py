"""How projects are trained that say nothing of it."""

from __future__ import annotations

from ml_backend.domain import DefaultModels
from ml_backend.learning import LearningOptions, Promotion, TrainingParameters, TriggerPolicy
from ml_backend.settings import Settings


def default_models(settings: Settings) -> DefaultModels:
    """Return what controls are served with that name no network or embedder."""
    return DefaultModels(model=settings.model, embedder=settings.embedder)


def learning_defaults(settings: Settings) -> LearningOptions:
    """Return how a project is trained whose label config says nothing of it."""
    return LearningOptions(
        policy=TriggerPolicy(
            manual=settings.training == "manual",
            new_tasks=settings.training_tasks,
            quiet_s=settings.training_quiet_s,
            pause_s=settings.training_pause_s,
            min_tasks=settings.training_min_tasks,
        ),
        promotion=Promotion(settings.promote),
        parameters=TrainingParameters(max_minutes=settings.training_minutes),
    )
