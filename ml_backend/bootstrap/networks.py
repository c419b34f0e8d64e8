"""The networks on this machine's device, and what uses them without Label Studio."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ml_backend.bootstrap.images import build_decoder
from ml_backend.bootstrap.records import existing_records
from ml_backend.domain import CLASSIFIER, Component
from ml_backend.engines.batch_observer import BatchObserver
from ml_backend.engines.catalogue import AUTO, file_sha256, model_names, resolve_component
from ml_backend.engines.cellpose import CellposeSegmenter, open_segmenter
from ml_backend.engines.device_profile import open_device
from ml_backend.engines.embedder_catalogue import resolve_embedder
from ml_backend.errors import CheckpointInvalid, EngineError, ModelError, SettingsError
from ml_backend.labelstudio.targets import EMBEDDER_PREFIX
from ml_backend.learning import Version
from ml_backend.service.file_prediction import FilePredictor
from ml_backend.service.model_names import ModelNames
from ml_backend.settings import Settings
from ml_backend.store.database import Database


@contextmanager
def open_device_segmenter(
    settings: Settings, *, observer: BatchObserver | None = None
) -> Iterator[tuple[CellposeSegmenter, str]]:
    """Yield a segmenter on the device that DEVICE names, and that device's name.

    Args:
        settings: Of this process.
        observer: Is told of every batch.

    Raises:
        SettingsError: this machine has no such device.
    """
    try:
        device = open_device(settings.device)
    except EngineError as error:
        raise SettingsError(error.message) from None
    with open_segmenter(
        device,
        max_networks=settings.max_networks,
        flow_cache_mb=settings.flow_cache_mb,
        observer=observer,
    ) as segmenter:
        yield segmenter, str(device)


def resolver(
    settings: Settings, device: str, database: Database | None = None
) -> Callable[[str], Component]:
    """Return what turns the name of a network or embedder into its verified component.

    It knows, in this order: built-in networks and Cellpose's, embedders with their prefix, trained
    and uploaded versions, ids of sessions that made one, paths of checkpoints. It raises ModelError
    with a sentence for a name that it cannot resolve.

    Args:
        settings: Of this process.
        device: Its name, such as "cuda:0"; decides what `auto` means.
        database: The records; None where there are none, and so no versions.
    """
    names = None if database is None else ModelNames(database, others=model_names())
    resolve_network = partial(
        resolve_component,
        models_dir=settings.cellpose_models_dir,
        cuda=device.startswith("cuda"),
    )

    def resolve(name: str) -> Component:
        if name.startswith(EMBEDDER_PREFIX):
            return resolve_embedder(name.removeprefix(EMBEDDER_PREFIX))
        if names is None or not _may_be_a_version(name):
            return resolve_network(name)
        version = names.usable(name)
        if version is not None:
            return _component_of(version)
        if not Path(name).expanduser().exists():
            raise names.unknown(name)
        return resolve_network(name)

    return resolve


def records_for(settings: Settings, name: str) -> Database | None:
    """Return the records where a model of that name may stand in them, for `resolver`.

    Raises:
        StoreError: there are some, but they cannot be read.
    """
    return existing_records(settings) if _may_be_a_version(name) else None


def _may_be_a_version(name: str) -> bool:
    if name == AUTO or name in model_names():
        return False
    path = Path(name).expanduser()
    return not (path.is_absolute() and path.exists())


def _component_of(version: Version) -> Component:
    component = version.component
    if component.architecture == CLASSIFIER:
        raise ModelError(
            f"The model {version.name!r} answers for Choices and finds no masks; name a network."
        )
    if file_sha256(Path(component.path)) != component.sha256:
        raise CheckpointInvalid(
            f"The weights of {version.name!r} are not what they were when it was made: the file "
            f"{component.path} is damaged or was replaced; name another model, or train again."
        )
    return component


@contextmanager
def file_predictor(settings: Settings, model: str | None = None) -> Iterator[FilePredictor]:
    """Yield what segments image files, without a server or network.

    Args:
        settings: of this process.
        model: a model's name, a session's id or a checkpoint's path; None = MODEL.

    Raises:
        SettingsError, ModelError
        StoreError: there are records, but they cannot be read.
    """
    requested = model or settings.model
    database = records_for(settings, requested)
    with open_device_segmenter(settings) as (segmenter, device):
        yield FilePredictor(
            decode=build_decoder(settings),
            segmenter=segmenter,
            component=resolver(settings, device, database)(requested),
        )
