"""What a request to an engine names: its project and its release."""

from __future__ import annotations

from ml_backend.domain import ProjectKey, Release
from ml_backend.errors import BadRequest
from ml_backend.store.projects import parse_project
from ml_backend.store.releases import Releases


def find_project(text: str) -> ProjectKey:
    """Return the key that str(ProjectKey) gave.

    Raises:
        BadRequest
    """
    origin, separator, name = text.rpartition("#")
    parsed = parse_project(name)
    if not separator or parsed is None:
        raise BadRequest(f"{text[:200]!r} is not a project key.")
    return ProjectKey(origin=origin, project_id=parsed[0], created_at=parsed[1])


def find_release(releases: Releases, project: ProjectKey, version: str) -> Release:
    """Return that release.

    Raises:
        BadRequest
    """
    release = releases.by_version(project, version)
    if release is None:
        raise BadRequest(f"Project {project} has no release {version[:100]!r}.")
    return release
