"""What people see and steer of the learning loop; nothing here imports a network library."""

from __future__ import annotations

from dataclasses import dataclass

from ml_backend.bootstrap.learning import default_models, learning_defaults
from ml_backend.bootstrap.records import open_database, prepare_records
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.service.planning import Planner
from ml_backend.service.sessions import TrainingDesk
from ml_backend.service.versions import VersionDesk
from ml_backend.settings import Settings
from ml_backend.store.annotations import AnnotationLedger
from ml_backend.store.components import Components
from ml_backend.store.database import Database
from ml_backend.store.projects import Projects
from ml_backend.store.releases import Releases
from ml_backend.store.sessions import Sessions
from ml_backend.store.versions import Versions


@dataclass(frozen=True, kw_only=True)
class Desks:
    """What the commands about sessions and versions work with."""

    projects: Projects
    training: TrainingDesk
    versions: Versions
    version_desk: VersionDesk


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
        training=training_desk(settings, database),
        versions=versions,
        version_desk=VersionDesk(versions=versions, releases=Releases(database)),
    )


def training_desk(settings: Settings, database: Database) -> TrainingDesk:
    """Return what finds, starts and stops sessions."""
    projects, sessions = Projects(database), Sessions(database)
    planner = Planner(
        models=default_models(settings),
        defaults=learning_defaults(settings),
        parse=parse_label_config,
        projects=projects,
        ledger=AnnotationLedger(database),
        sessions=sessions,
        versions=Versions(database),
        components=Components(database),
    )
    return TrainingDesk(projects, sessions, planner)
