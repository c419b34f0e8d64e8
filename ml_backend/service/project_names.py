"""Finds the project that a person names."""

from __future__ import annotations

from collections.abc import Sequence

from ml_backend.domain import ProjectKey
from ml_backend.errors import BadRequest, NotFound
from ml_backend.store.projects import Project, Projects, parse_project

_SHOWN = 20  # names in a sentence
_SHOWN_CHARS = 100  # of what was asked for


def find_project(projects: Projects, name: str) -> Project:
    """Return the project that a person names: by its number, "<id>.<created_at>" or whole key.

    Raises:
        NotFound: no project of that name was ever set up here.
        BadRequest: several are of that name; the sentence has the names that tell them apart.
        StoreError
    """
    known = projects.all()
    found = [project for project in known if is_named(project.key, name)]
    if not found:
        numbers = sorted({project.key.project_id for project in known})
        listed = _listed([str(number) for number in numbers]) or "none yet"
        raise NotFound(
            f"There is no project {name[:_SHOWN_CHARS]!r} here; those that Label Studio has set "
            f"up: {listed}. `ml-backend connect` adds one."
        )
    if len(found) > 1:
        raise BadRequest(
            f"Several projects are called {name!r}; name one of them: "
            f"{_choices([project.key for project in found])}."
        )
    return found[0]


def is_named(key: ProjectKey, name: str) -> bool:
    """Return whether a person means that project: by number, "<id>.<created_at>" or whole key."""
    if str(key) == name:
        return True
    parsed = parse_project(name)
    if parsed is None:
        return False
    project_id, created_at = parsed
    return key.project_id == project_id and ("." not in name or key.created_at == created_at)


def _choices(keys: Sequence[ProjectKey]) -> str:
    return _listed([repr(str(key)) for key in keys])


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
