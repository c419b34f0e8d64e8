"""What people see and steer of the learning loop; nothing here imports a network library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ml_backend.bootstrap.learning import default_models, learning_defaults
from ml_backend.bootstrap.models import open_model_desk, open_model_names, open_version_desk
from ml_backend.bootstrap.records import open_database, prepare_records
from ml_backend.bootstrap.toolkit import toolkit_planner
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.service.dataset_sources import AllowedPaths
from ml_backend.service.model_desk import ModelDesk
from ml_backend.service.planning import Planner
from ml_backend.service.session_debug import SessionDebugger
from ml_backend.service.session_starts import SessionStarter, StarterRecords
from ml_backend.service.sessions import TrainingDesk
from ml_backend.service.versions import VersionDesk
from ml_backend.settings import Settings
from ml_backend.store.annotations import AnnotationLedger
from ml_backend.store.components import Components
from ml_backend.store.database import Database
from ml_backend.store.datasets import Datasets
from ml_backend.store.projects import Projects
from ml_backend.store.sessions import Sessions
from ml_backend.store.trainers import Trainers
from ml_backend.store.versions import Versions


@dataclass(frozen=True, kw_only=True)
class Desks:
    """What the commands about sessions and versions work with."""

    projects: Projects
    training: TrainingDesk
    starter: SessionStarter
    debugger: SessionDebugger
    versions: Versions
    version_desk: VersionDesk
    model_desk: ModelDesk


def open_desks(settings: Settings) -> Desks:
    """Return the desks on the records, which are made where there are none.

    Raises:
        StoreError
    """
    prepare_records(settings)
    database = open_database(settings)
    projects, versions = Projects(database), Versions(database)
    return Desks(
        projects=projects,
        training=training_desk(database),
        starter=session_starter(settings, database),
        debugger=session_debugger(database),
        versions=versions,
        version_desk=open_version_desk(settings, database),
        model_desk=open_model_desk(settings, database),
    )


def training_desk(database: Database) -> TrainingDesk:
    """Return what finds, stops and deletes sessions."""
    return TrainingDesk(Projects(database), Sessions(database))


def session_starter(settings: Settings, database: Database) -> SessionStarter:
    """Return what starts sessions."""
    defaults = learning_defaults(settings)
    records = StarterRecords(
        projects=Projects(database),
        datasets=Datasets(database),
        sessions=Sessions(database),
        components=Components(database),
        models=open_model_names(database),
    )
    planner = Planner(
        models=default_models(settings),
        defaults=defaults,
        parse=parse_label_config,
        projects=records.projects,
        ledger=AnnotationLedger(database),
        sessions=records.sessions,
        versions=Versions(database),
        components=records.components,
    )
    return SessionStarter(
        records,
        toolkit_planner(settings, database) or planner,
        AllowedPaths(data_roots(settings)),
        default_model=settings.model,
        usual=defaults.parameters,
    )


def session_debugger(database: Database) -> SessionDebugger:
    """Return what says why a session is in its state."""
    return SessionDebugger(Sessions(database), Trainers(database))


def data_roots(settings: Settings) -> list[Path]:
    """Return the folders whose files callers may name."""
    named = (one.strip() for one in settings.data_roots.split(","))
    return [Path(one).expanduser() for one in named if one]
