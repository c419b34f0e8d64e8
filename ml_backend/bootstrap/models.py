"""What lists models and changes what is served; nothing here imports a network library."""

from __future__ import annotations

from ml_backend.bootstrap.learning import default_models
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.model_files.known import model_names
from ml_backend.service.model_desk import ModelDesk
from ml_backend.service.model_names import ModelNames
from ml_backend.service.model_uses import ModelUses
from ml_backend.service.versions import VersionDesk
from ml_backend.settings import Settings
from ml_backend.store.components import Components
from ml_backend.store.database import Database
from ml_backend.store.datasets import Datasets
from ml_backend.store.projects import Projects
from ml_backend.store.releases import Releases
from ml_backend.store.sessions import Sessions
from ml_backend.store.versions import Versions


def open_model_names(database: Database) -> ModelNames:
    """Return what knows how models are called."""
    return ModelNames(database, others=model_names())


def open_model_desk(settings: Settings, database: Database) -> ModelDesk:
    """Return the catalogue of models."""
    return ModelDesk(
        projects=Projects(database),
        versions=Versions(database),
        releases=Releases(database),
        components=Components(database),
        datasets=Datasets(database),
        names=open_model_names(database),
        cellpose_dir=settings.cellpose_models_dir,
    )


def open_version_desk(settings: Settings, database: Database) -> VersionDesk:
    """Return what changes which versions are served."""
    versions, releases = Versions(database), Releases(database)
    return VersionDesk(
        projects=Projects(database),
        versions=versions,
        releases=releases,
        components=Components(database),
        uses=ModelUses(
            versions=versions,
            releases=releases,
            sessions=Sessions(database),
            names=open_model_names(database),
        ),
        models=default_models(settings),
        parse=parse_label_config,
    )
