"""Predictions without records, for a server of somebody else's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ml_backend.bootstrap.embeddings import embedding_classifier, open_embedding_cache
from ml_backend.bootstrap.engine import threads_for
from ml_backend.bootstrap.images import build_decoder, build_fetcher
from ml_backend.bootstrap.learning import default_models
from ml_backend.bootstrap.networks import open_device_segmenter, records_for, resolver
from ml_backend.bootstrap.records import secret_of
from ml_backend.domain import POST_PROCESSING_REVISION, LabelStudioAccess
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.service.access import choose_access
from ml_backend.service.task_prediction import TaskPredictor
from ml_backend.service.unrecorded import UnrecordedPredictions
from ml_backend.settings import read_settings


@contextmanager
def open_unrecorded() -> Iterator[UnrecordedPredictions]:
    """Yield predictions by what the environment's settings name; MODEL is loaded and tried.

    Raises:
        SettingsError, ModelError, EngineError
    """
    settings = read_settings()

    def access(hostname: str | None, token: str | None) -> LabelStudioAccess:
        return choose_access(
            configured_url=settings.label_studio_url,
            configured_token=secret_of(settings.label_studio_api_key),
            setup_hostname=hostname,
            setup_token=token,
            # whom the toolkit's server answers is not ours to know
            setup_allowed=settings.setup_hostname == "allow",
        )

    with open_device_segmenter(settings) as (segmenter, device):
        resolve = resolver(settings, device, records_for(settings, settings.model))
        segmenter.warm(resolve(settings.model))
        classifier = embedding_classifier(
            open_embedding_cache(settings), torch.device(device), segmenter.run_on_device
        )
        yield UnrecordedPredictions(
            TaskPredictor(
                fetcher=build_fetcher(settings),
                decode=build_decoder(settings),
                segmenter=segmenter,
                classifier=classifier,
            ),
            resolve,
            parse=parse_label_config,
            models=default_models(settings),
            revision=POST_PROCESSING_REVISION,
            access=access,
            threads=threads_for(settings, device),
            budget_s=settings.predict_budget_s,
        )
