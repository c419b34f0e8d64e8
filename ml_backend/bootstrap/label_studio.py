"""The ways to Label Studio, each with its credentials."""

from __future__ import annotations

from ml_backend.bootstrap.records import open_database, secret_of
from ml_backend.domain import LabelStudioAccess, ProjectKey
from ml_backend.errors import SettingsError
from ml_backend.labelstudio.client import LabelStudioClient
from ml_backend.service.access import choose_access
from ml_backend.service.connect import BackendAddress, ConnectReport, connect
from ml_backend.service.doctor import basic_auth_of
from ml_backend.settings import Settings
from ml_backend.store.projects import Projects


def configured_access(settings: Settings) -> LabelStudioAccess:
    """Return the Label Studio that the settings name, whatever has introduced itself."""
    return LabelStudioAccess(
        origin=settings.label_studio_url, token=secret_of(settings.label_studio_api_key)
    )


def access_of(settings: Settings, projects: Projects, key: ProjectKey) -> LabelStudioAccess:
    """Return how to reach the Label Studio of a project."""
    project = projects.get(key)
    return choose_access(
        configured_url=settings.label_studio_url,
        configured_token=secret_of(settings.label_studio_api_key),
        setup_hostname=project.hostname if project else None,
        setup_token=project.access_token if project else None,
        setup_allowed=settings.setup_hostname_allowed,
    )


def label_studio_of(
    settings: Settings, projects: Projects, key: ProjectKey
) -> LabelStudioClient | None:
    """Return the client that may push predictions of a project, None without credentials."""

    access = access_of(settings, projects, key)
    if access.origin is None or access.token is None:
        return None
    return LabelStudioClient(access.origin, access.token)


def connect_project(settings: Settings, project: str, url: str) -> ConnectReport:
    """Register the backend at `url` in a project of Label Studio.

    Raises:
        SettingsError: there is no way to Label Studio.
    """

    key = secret_of(settings.label_studio_api_key)
    if settings.label_studio_url is None or key is None:
        raise SettingsError(
            "Set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY (Label Studio: Account & Settings > "
            "Personal Access Token)."
        )
    projects = Projects(open_database(settings))

    def known_origin(name: str) -> str | None:
        introduced = projects.find(name)
        return introduced.key.origin if introduced else None

    backend = BackendAddress(
        url=url,
        auth=basic_auth_of(settings),
        webhook_secret=secret_of(settings.webhook_secret),
    )
    label_studio = LabelStudioClient(settings.label_studio_url, key)
    return connect(label_studio, project, backend, known_origin=known_origin)
