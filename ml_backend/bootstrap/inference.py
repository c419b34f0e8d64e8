"""What answers programs that send images, in the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ml_backend.bootstrap.images import build_decoder
from ml_backend.bootstrap.label_studio import configured_access
from ml_backend.bootstrap.own_folder import own_folder
from ml_backend.bootstrap.records import MEGABYTE
from ml_backend.bootstrap.sessions import data_roots
from ml_backend.bootstrap.training import models_folder
from ml_backend.domain import Component, Fetcher, FlowSegmenter
from ml_backend.model_files.known import model_names
from ml_backend.service.dataset_sources import AllowedPaths
from ml_backend.service.inference import Inference
from ml_backend.service.inference_images import ImageSources
from ml_backend.service.model_choice import ModelChoice
from ml_backend.service.model_names import ModelNames
from ml_backend.settings import Settings
from ml_backend.store.database import Database
from ml_backend.store.datasets import Datasets


@contextmanager
def open_inference(
    settings: Settings,
    database: Database,
    *,
    fetcher: Fetcher,
    segmenter: FlowSegmenter,
    resolve: Callable[[str], Component],
) -> Iterator[Inference]:
    """Yield what answers; uploads and answers lie in a folder of DATA_DIR meanwhile.

    Args:
        settings: Of the engine.
        database: The records.
        fetcher: The way to images.
        segmenter: On the engine's device.
        resolve: Turns the name or path of a network into its component.

    Raises:
        StoreError: there is no such folder and none can be made.
    """
    roots = data_roots(settings)
    choice = ModelChoice(
        resolve=resolve,
        names=ModelNames(database, others=model_names()),
        paths=AllowedPaths([*roots, models_folder(settings)]),
        default=settings.model,
    )
    with own_folder(settings.data_dir / "infer") as folder:
        yield Inference(
            sources=ImageSources(
                fetcher=fetcher,
                access=configured_access(settings),
                decode=build_decoder(settings),
                paths=AllowedPaths(roots),
                find_dataset=Datasets(database).get,
                max_bytes=settings.max_image_mb * MEGABYTE,
                max_megapixels=settings.max_image_megapixels,
            ),
            segmenter=segmenter,
            choose_model=choice.choose,
            folder=folder,
            budget_s=settings.infer_budget_s,
        )
