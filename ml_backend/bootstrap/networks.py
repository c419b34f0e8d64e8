"""The networks on this machine's device, and what uses them without Label Studio."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from ml_backend.bootstrap.images import build_decoder
from ml_backend.domain import Component
from ml_backend.engines.catalogue import resolve_component
from ml_backend.engines.cellpose import CellposeSegmenter, open_segmenter
from ml_backend.engines.device_profile import open_device
from ml_backend.engines.embedder_catalogue import resolve_embedder
from ml_backend.errors import EngineError, SettingsError
from ml_backend.labelstudio.targets import EMBEDDER_PREFIX
from ml_backend.service.file_prediction import FilePredictor
from ml_backend.settings import Settings


@contextmanager
def open_device_segmenter(settings: Settings) -> Iterator[tuple[CellposeSegmenter, str]]:
    """Yield a segmenter on the device that DEVICE names, and that device's name.

    Raises:
        SettingsError: this machine has no such device.
    """
    try:
        device = open_device(settings.device)
    except EngineError as error:
        raise SettingsError(error.message) from None
    with open_segmenter(
        device, max_networks=settings.max_networks, flow_cache_mb=settings.flow_cache_mb
    ) as segmenter:
        yield segmenter, str(device)


def resolver(settings: Settings, device: str) -> Callable[[str], Component]:
    """Return what turns the name of a network or embedder into its verified component."""
    resolve_network = partial(
        resolve_component,
        models_dir=settings.cellpose_models_dir,
        cuda=device.startswith("cuda"),
    )

    def resolve(name: str) -> Component:
        if name.startswith(EMBEDDER_PREFIX):
            return resolve_embedder(name.removeprefix(EMBEDDER_PREFIX))
        return resolve_network(name)

    return resolve


@contextmanager
def file_predictor(settings: Settings, model: str | None = None) -> Iterator[FilePredictor]:
    """Yield what segments image files, without records or network.

    Args:
        settings: of this process.
        model: a model's name or a checkpoint's path; None = MODEL.

    Raises:
        SettingsError, ModelError
    """

    with open_device_segmenter(settings) as (segmenter, device):
        yield FilePredictor(
            decode=build_decoder(settings),
            segmenter=segmenter,
            component=resolver(settings, device)(model or settings.model),
        )
