"""What a toolkit class reaches outside itself: its project's values, and files of tasks.

The toolkit makes an instance from a project's number and label config alone. Numbers repeat from
one Label Studio to the next, so whose instance it is stands in `current_project` while it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ml_backend.domain import ProjectKey
from ml_backend.errors import ToolkitError

NO_PROJECT = ProjectKey(origin="", project_id=0, created_at=0)
"""Whose values an instance has that somebody made for no project."""


class Values(Protocol):
    """The texts that a class keeps for each project."""

    def get(self, project: ProjectKey, key: str) -> str | None:
        """Return a value, None where there is none."""
        ...

    def set(self, project: ProjectKey, key: str, value: str) -> None:
        """Keep a value."""
        ...

    def revision_of_others(self, project: ProjectKey) -> tuple[int, int]:
        """Return what changes whenever another process writes a value of a project."""
        ...


@dataclass(frozen=True, kw_only=True)
class Ports:
    """The ways out of a class."""

    values: Values
    fetch: Callable[[ProjectKey, str, int | None], Path]  # address, number of the task -> file


current_project: ContextVar[ProjectKey] = ContextVar("current_project", default=NO_PROJECT)

_OWNER = "_ml_backend_project"
_plugged: list[Ports] = []  # the ports of this process, once they are known


def plug_in(ports: Ports) -> None:
    """Have all classes of this process use these ports."""
    _plugged[:] = [ports]


def ports() -> Ports:
    """Return the ports of this process.

    Raises:
        ToolkitError: it has none.
    """
    if not _plugged:
        raise ToolkitError(
            "This process serves no toolkit class, so there are no values to get or set; start it "
            "with `ml-backend serve --toolkit`."
        )
    return _plugged[0]


@contextmanager
def making_for(project: ProjectKey) -> Iterator[None]:
    """Have instances that are made meanwhile belong to `project`."""
    token = current_project.set(project)
    try:
        yield
    finally:
        current_project.reset(token)


def project_of(instance: Any) -> ProjectKey:
    """Return the project that an instance of a toolkit class was made for."""
    # not in __init__, which a class may write anew without calling ours first
    owner = instance.__dict__.setdefault(_OWNER, current_project.get())
    assert isinstance(owner, ProjectKey)  # noqa: S101  # nobody else uses that name
    return owner
