"""What writes models as files for other programs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_backend.bootstrap.networks import records_for, resolver
from ml_backend.bootstrap.own_folder import own_folder
from ml_backend.bootstrap.records import open_database
from ml_backend.bootstrap.sessions import data_roots
from ml_backend.bootstrap.training import models_folder
from ml_backend.domain import Component
from ml_backend.engines.device_profile import open_device
from ml_backend.engines.network_store import load_on_cpu
from ml_backend.errors import BackendError, EngineError, SettingsError
from ml_backend.model_files.known import model_names
from ml_backend.processes.engine_export import ExportWork
from ml_backend.processes.export_child import (
    BODY_FILE,
    MODEL_FILE,
    ExportedFile,
    export_in_child,
    write_answer,
)
from ml_backend.processes.manners import NICENESS
from ml_backend.service.bioimage_package import PackageBuilder, Tell
from ml_backend.service.dataset_sources import AllowedPaths
from ml_backend.service.export_request import ExportRequest, read_export_request
from ml_backend.service.exporter import Exported, ModelExporter
from ml_backend.service.model_choice import ModelChoice
from ml_backend.service.model_names import ModelNames
from ml_backend.service.package_programs import PackagePrograms
from ml_backend.settings import Settings


def export_here(settings: Settings, request: ExportRequest, folder: Path, tell: Tell) -> Exported:
    """Return the file that a person on this machine asks for, who may name any path.

    Args:
        settings: Of this process.
        request: Checked.
        folder: Empty; the caller removes it.
        tell: Is told what is being done.

    Raises:
        SettingsError, StoreError
        BackendError: as `ModelExporter.export`.
    """
    database = records_for(settings, request.model)
    resolve = resolver(settings, _device_name(settings), database)
    return _exporter(resolve).export(request, folder, tell)


def export_for_engine(settings: Settings, folder: Path) -> None:
    """Write the file that a caller of the API asks for, who may name models only.

    What is asked for lies in `folder`, and so does what came of it afterwards.
    """

    def work() -> ExportedFile:
        database = open_database(settings)
        choice = ModelChoice(
            resolve=resolver(settings, _device_name(settings), database),
            names=ModelNames(database, others=model_names()),
            paths=AllowedPaths([*data_roots(settings), models_folder(settings)]),
            default=settings.model,
        )
        model = (folder / MODEL_FILE).read_text("utf-8")
        request = read_export_request(model, (folder / BODY_FILE).read_bytes())
        written = folder / "written"
        written.mkdir()
        exported = _exporter(choice.choose).export(request, written, lambda _: None)
        return ExportedFile(
            path=exported.path,
            name=exported.name,
            media_type=exported.media_type,
            notes=exported.notes,
        )

    with contextlib.suppress(OSError, AttributeError):  # Windows has no such thing
        os.nice(NICENESS)  # people wait for the engine on the same machine
    try:
        answer: ExportedFile | BackendError = work()
    except BackendError as error:
        answer = error
    except OSError as error:
        answer = EngineError(f"The export cannot be written ({error.strerror or error}).")
    write_answer(folder, answer)


@contextmanager
def open_exports(settings: Settings) -> Iterator[ExportWork]:
    """Yield what exports models in an engine; its files lie in a folder of DATA_DIR meanwhile.

    Raises:
        StoreError: there is no such folder and none can be made.
    """
    with (
        own_folder(settings.data_dir / "exports") as folder,
        ExportWork(export_in_child, parent=folder) as work,
    ):
        yield work


def _exporter(resolve: Callable[[str], Component]) -> ModelExporter:
    return ModelExporter(resolve, PackageBuilder(load_on_cpu, PackagePrograms()))


def _device_name(settings: Settings) -> str:
    try:
        return str(open_device(settings.device))  # decides what `auto` means, and nothing else
    except EngineError as error:
        raise SettingsError(error.message) from None
