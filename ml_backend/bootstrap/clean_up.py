"""The removal of old predictions from Label Studio, wired."""

from __future__ import annotations

from ml_backend.bootstrap.label_studio import access_of
from ml_backend.bootstrap.records import open_database
from ml_backend.domain import ProjectKey
from ml_backend.errors import NotFound, SettingsError
from ml_backend.labelstudio.connection import Connection
from ml_backend.labelstudio.stored_predictions import StoredPredictions
from ml_backend.service.clean_up import CleanedUp, clean_up
from ml_backend.settings import Settings
from ml_backend.store.annotations import AnnotationLedger
from ml_backend.store.projects import Projects
from ml_backend.store.releases import Releases


def clean_up_predictions(
    settings: Settings, project: ProjectKey, *, older_than_days: float, dry_run: bool
) -> CleanedUp:
    """Remove predictions of versions that `project` serves no more, as far as nobody needs them.

    Raises:
        SettingsError: there is no way to Label Studio.
        NotFound: the project serves nothing yet.
        Conflict: so young predictions may be open somewhere.
        LabelStudioError, StoreError
    """
    database = open_database(settings)
    releases = Releases(database)
    access = access_of(settings, Projects(database), project)
    if access.origin is None or access.token is None:
        raise SettingsError("Set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY: predictions lie there.")
    pointer = releases.pointer(project)
    if pointer is None:
        raise NotFound(f"The project {project} serves nothing yet; open it in Label Studio.")
    annotations = AnnotationLedger(database).counted(project)
    return clean_up(
        StoredPredictions(Connection(access.origin, access.token)),
        project,
        served=pointer.version,
        served_since=pointer.activated_at,
        known=releases.versions(project),
        annotated_from={
            annotation.parent_prediction
            for annotation in annotations
            if annotation.parent_prediction is not None
        },
        older_than_days=older_than_days,
        dry_run=dry_run,
    )
