"""What writes the annotations and predictions of projects as files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from ml_backend.bootstrap.engine_requests import find_project as project_key
from ml_backend.bootstrap.images import build_decoder, build_fetcher
from ml_backend.bootstrap.label_studio import access_of, label_studio_of
from ml_backend.bootstrap.own_folder import own_folder
from ml_backend.bootstrap.records import open_database
from ml_backend.domain import ProjectKey
from ml_backend.errors import Conflict, EngineError, NotFound
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.labelstudio.stored_predictions import StoredPredictions
from ml_backend.processes.engine_export import ExportWork
from ml_backend.processes.export_child import ExportedFile
from ml_backend.service.project_export import (
    ExportedProject,
    Interrupted,
    ProjectExporter,
)
from ml_backend.service.project_export_request import (
    ProjectExportRequest,
    Subject,
    read_project_export,
)
from ml_backend.service.project_names import find_project
from ml_backend.service.said_of_tasks import Said, annotations_of, predictions_of
from ml_backend.settings import Settings
from ml_backend.store.annotations import AnnotationLedger
from ml_backend.store.database import Database
from ml_backend.store.predictions import KeptPredictions
from ml_backend.store.projects import Projects
from ml_backend.store.releases import Releases


def export_project_here(
    settings: Settings,
    project: str,
    request: ProjectExportRequest,
    folder: Path,
    on_task: Callable[[int], None],
) -> ExportedProject:
    """Return the archive of the project that a person names; see `find_project`.

    Raises:
        NotFound, BadRequest: there is no such project, or there are several.
        ConfigError, Conflict, StoreError, LabelStudioError: as `export_project`.
        OSError: it cannot be written.
    """
    database = open_database(settings)
    key = find_project(Projects(database), project).key
    return export_project(settings, database, key, request, folder, on_task=on_task)


def export_project(
    settings: Settings,
    database: Database,
    key: ProjectKey,
    request: ProjectExportRequest,
    folder: Path,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_task: Callable[[int], None] = lambda _done: None,
) -> ExportedProject:
    """Return the archive of a project, written into an empty folder.

    Args:
        settings: Of this process.
        database: The records.
        key: Whose annotations or predictions.
        request: Which, and how.
        folder: The caller removes it.
        should_stop: Asked before each task.
        on_task: Told how many are done.

    Raises:
        NotFound: there is no such project.
        ConfigError: its label config cannot be used.
        Conflict: it serves nothing whose predictions could be meant.
        Interrupted, StoreError, LabelStudioError
        OSError: it cannot be written.
    """
    projects = Projects(database)
    project = projects.get(key)
    if project is None:
        raise NotFound(f"There is no project {key}; `ml-backend connect` adds one.")
    notes: list[str] = []
    version = request.version
    if request.what is Subject.PREDICTIONS and version is None:
        active = Releases(database).active(key)
        if active is None:
            raise Conflict(
                f"Project {key.project_id} serves no model yet, so it has no predictions; open it "
                "in Label Studio first, or name a version."
            )
        version = active.version
    exporter = ProjectExporter(fetcher=build_fetcher(settings), decode=build_decoder(settings))
    return exporter.export(
        key,
        parse_label_config(project.label_config),
        _said(settings, database, key, request, version, notes),
        request,
        facts={
            "project": str(key),
            "version_exported": version,
            "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        notes=notes,
        access=access_of(settings, projects, key),
        folder=folder,
        should_stop=should_stop,
        on_task=on_task,
    )


def _said(
    settings: Settings,
    database: Database,
    key: ProjectKey,
    request: ProjectExportRequest,
    version: str | None,
    notes: list[str],
) -> Iterator[Said]:
    ledger = AnnotationLedger(database)
    if request.what is Subject.ANNOTATIONS or version is None:
        return annotations_of(ledger, key, every=request.every, notes=notes)
    label_studio = label_studio_of(settings, Projects(database), key)
    return predictions_of(
        KeptPredictions(database),
        ledger,
        key,
        version,
        label_studio=label_studio,
        shelf=None if label_studio is None else StoredPredictions(label_studio),
        notes=notes,
    )


@contextmanager
def open_project_exports(settings: Settings, database: Database) -> Iterator[ExportWork]:
    """Yield what exports projects in an engine; its files lie in a folder of DATA_DIR meanwhile.

    Raises:
        StoreError: there is no such folder and none can be made.
    """
    with (
        own_folder(settings.data_dir / "project-exports") as folder,
        ExportWork(partial(_for_engine, settings, database), parent=folder) as work,
    ):
        yield work


def _for_engine(
    settings: Settings,
    database: Database,
    project: str,
    body: bytes,
    folder: Path,
    *,
    should_stop: Callable[[], bool],
) -> ExportedFile:
    key, request = project_key(project), read_project_export(body)
    try:
        written = export_project(settings, database, key, request, folder, should_stop=should_stop)
    except Interrupted:
        raise EngineError("The export was given up: nobody waits for it.") from None
    except OSError as error:
        raise EngineError(f"The export cannot be written ({error.strerror or error}).") from error
    return ExportedFile(
        path=written.path, name=written.path.name, media_type="application/zip", notes=()
    )
