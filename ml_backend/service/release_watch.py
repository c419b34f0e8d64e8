"""Notices that a project serves another release, whichever process has made it so."""

from __future__ import annotations

from collections.abc import Callable

from ml_backend.domain import ProjectKey
from ml_backend.store.projects import Projects
from ml_backend.store.releases import Pointer, Releases


class ReleaseWatch:
    """Tells of each change of an active release once, but not of what was there at its start."""

    def __init__(
        self, projects: Projects, releases: Releases, tell: Callable[[ProjectKey], None]
    ) -> None:
        self._projects = projects
        self._releases = releases
        self._tell = tell
        self._seen: dict[ProjectKey, Pointer | None] = {}

    def look(self) -> None:
        """Look at every project.

        Raises:
            StoreError
        """
        for project in self._projects.all():
            pointer = self._releases.pointer(project.key)
            before = self._seen.get(project.key)
            self._seen[project.key] = pointer
            if before is not None and pointer is not None and pointer.version != before.version:
                self._tell(project.key)
