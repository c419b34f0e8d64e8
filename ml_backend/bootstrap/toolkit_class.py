"""A toolkit class in this process: imported, with its ways to values and files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import structlog

from ml_backend.bootstrap.images import build_fetcher
from ml_backend.bootstrap.label_studio import access_of
from ml_backend.domain import TOOLKIT, Component, ProjectKey
from ml_backend.hosting.files import NamedFiles
from ml_backend.hosting.loading import ToolkitClass, load_class
from ml_backend.hosting.ports import Ports, plug_in
from ml_backend.settings import Settings
from ml_backend.store.database import Database
from ml_backend.store.projects import Projects
from ml_backend.store.toolkit_values import ToolkitValues

log = structlog.get_logger(__name__)


def open_class(settings: Settings, database: Database, values: ToolkitValues) -> ToolkitClass:
    """Import the class that TOOLKIT_MODEL names, and give it its ways out.

    Raises:
        ModelError: it cannot be imported.
        ImageFetchError: the folder for files cannot be made.
    """
    fetcher = build_fetcher(settings, images_only=False)
    access = partial(access_of, settings, Projects(database))
    files = NamedFiles(settings.data_dir / "toolkit" / "files")

    def fetch(project: ProjectKey, address: str, task_id: int | None) -> Path:
        file = fetcher.fetch(address, task_id=task_id, access=access(project))
        return files.name(file, address)

    plug_in(Ports(values=values, fetch=fetch))
    found = load_class(settings.toolkit_model or "")
    log.info("toolkit class imported", toolkit_class=found.name, path=str(found.path))
    return found


def component_of(toolkit_class: ToolkitClass) -> Component:
    """Return an imported class as a component, before it has set any version."""
    return Component(
        name=toolkit_class.name,
        architecture=TOOLKIT,
        sha256=toolkit_class.sha256,
        path=str(toolkit_class.path),
        licence="unknown",
    )
