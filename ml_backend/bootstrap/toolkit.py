"""What all processes need where a toolkit class is served; nothing here imports the class."""

from __future__ import annotations

from ml_backend.bootstrap.learning import default_models
from ml_backend.domain import POST_PROCESSING_REVISION, DefaultModels
from ml_backend.service.toolkit_fits import ToolkitPlanner
from ml_backend.service.toolkit_releasing import ToolkitReleasing
from ml_backend.settings import Settings
from ml_backend.store.components import Components
from ml_backend.store.database import Database
from ml_backend.store.events import Events
from ml_backend.store.projects import Projects
from ml_backend.store.releases import Releases
from ml_backend.store.sessions import Sessions
from ml_backend.store.toolkit_values import ToolkitValues
from ml_backend.store.waiting_events import WaitingEvents

PREFIX = "toolkit:"
"""In front of TOOLKIT_MODEL in the table of components, which other models share."""


def served_by_default(settings: Settings) -> DefaultModels:
    """Return what controls are served with that name nothing: MODEL, or the toolkit class."""
    models = default_models(settings)
    if settings.toolkit_model is None:
        return models
    return DefaultModels(model=PREFIX + settings.toolkit_model, embedder=models.embedder)


def toolkit_releasing(
    settings: Settings, database: Database, values: ToolkitValues | None = None
) -> ToolkitReleasing | None:
    """Return what makes the releases of a toolkit class, None where none is served."""
    if settings.toolkit_model is None:
        return None
    return ToolkitReleasing(
        requested=PREFIX + settings.toolkit_model,
        revision=POST_PROCESSING_REVISION,
        components=Components(database),
        values=values or ToolkitValues(database),
        releases=Releases(database),
    )


def toolkit_planner(settings: Settings, database: Database) -> ToolkitPlanner | None:
    """Return what has `fit` called when a person asks, None where no toolkit class is served."""
    if settings.toolkit_model is None:
        return None
    return ToolkitPlanner(
        Projects(database), Events(database), WaitingEvents(database), Sessions(database)
    )
