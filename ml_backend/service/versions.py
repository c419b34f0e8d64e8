"""What a person does with the versions of a project: look at them, activate, go back, put away.

Nothing is served by these calls themselves: they leave a row that an engine carries out, and
`activation` tells how far it has come. The command line and the API share them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from ml_backend.domain import ProjectKey
from ml_backend.errors import Conflict, NotFound, StoreError
from ml_backend.learning import Activation, ActivationState, Version, VersionState, origin_of
from ml_backend.store.releases import Releases
from ml_backend.store.versions import Versions


@dataclass(frozen=True, kw_only=True)
class VersionOverview:
    """A version and whether it is served now."""

    version: Version
    serving: tuple[str, ...]  # controls that it is served for


@dataclass(frozen=True, kw_only=True)
class ProjectVersions:
    """What a project serves and could serve."""

    project: ProjectKey
    release: str | None  # version string that /setup answers; None: not set up yet
    versions: tuple[VersionOverview, ...]  # newest first
    activations: tuple[Activation, ...]  # newest first


def _manifest(version: Version) -> dict[str, Any]:
    path = Path(version.component.path).parent / "manifest.json"
    try:
        manifest = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


@dataclass(frozen=True, kw_only=True)
class VersionDesk:
    """Lists and changes what projects serve."""

    versions: Versions
    releases: Releases

    def pictures(self, project: ProjectKey, name: str) -> tuple[Path, ...]:
        """Return the pictures of a version of classes: its embedding, and each cluster's images.

        Raises:
            NotFound: it has none, or they are not on this machine.
            StoreError
        """
        version = self.versions.get(project, name)
        named = [] if version is None else _manifest(version).get("pictures", [])
        folder = Path() if version is None else Path(version.component.path).parent
        found = tuple(
            folder / file
            for file in named
            if isinstance(file, str) and Path(file).name == file and (folder / file).is_file()
        )
        if not found:
            raise NotFound(
                f"The version {name[:100]!r} has no pictures on this machine; versions that "
                "learned classes have them."
            )
        return found

    def list(self, project: ProjectKey) -> ProjectVersions:
        """Return what `project` serves and could serve.

        Raises:
            StoreError
        """
        active = self.releases.active(project)
        components = {} if active is None else active.components
        serving = {  # less those whose control asks for another base by now
            control: served
            for control, served in self.versions.serving(project).items()
            if control in components and components[control].sha256 == served.component.sha256
        }
        overviews = [
            VersionOverview(
                version=version,
                serving=tuple(
                    sorted(
                        control
                        for control, served in serving.items()
                        if served.version_name == version.name
                    )
                ),
            )
            for version in self.versions.all(project)
        ]
        return ProjectVersions(
            project=project,
            release=None if active is None else active.version,
            versions=tuple(sorted(overviews, key=lambda item: -item.version.created_at)),
            activations=tuple(self.versions.history(project)),
        )

    def get(self, project: ProjectKey, name: str) -> Version:
        """Return that version.

        Raises:
            NotFound, StoreError
        """
        found = self.versions.get(project, name)
        if found is None:
            known = ", ".join(version.name for version in self.versions.all(project)) or "none"
            raise NotFound(f"Project {project} has no version {name[:200]!r}; it has: {known}.")
        return found

    def activate(self, project: ProjectKey, name: str, *, by: str) -> Activation:
        """Ask for a version to be served, whatever the gate said of it.

        Args:
            project: whose version.
            name: of the version.
            by: who asks, for the record.

        Raises:
            NotFound: there is no such version.
            Conflict: it cannot be loaded, or was put away.
            StoreError
        """
        version = self.get(project, name)
        if version.state is VersionState.REFUSED:
            raise Conflict(f"The version {name!r} cannot be served: {version.message}")
        if version.state is VersionState.ARCHIVED:
            raise Conflict(f"The version {name!r} was put away; train again or choose another.")
        return self.versions.request(
            project,
            components=dict.fromkeys(version.controls, version.component),
            reason=f"{by} activated {name}",
            origins=dict.fromkeys(version.controls, origin_of(version)),
        )

    def activate_base(self, project: ProjectKey, *, by: str) -> Activation:
        """Ask for the base networks to be served, whatever was trained.

        Raises:
            Conflict: they are served already.
            StoreError
        """
        removed = sorted(self.versions.serving(project))
        if not removed:
            raise Conflict("The base network is served already.")
        return self.versions.request(
            project, components={}, removed=removed, reason=f"{by} went back to the base network"
        )

    def rollback(self, project: ProjectKey, *, by: str) -> Activation:
        """Ask for what was served before the last change; again, for what was before that.

        Raises:
            Conflict: there is nothing to go back to, or a change is under way.
        """
        try:
            return self.versions.roll_back(project, reason=f"{by} rolled back")
        except StoreError as error:  # its sentence says what to do instead
            raise Conflict(error.message) from error

    def archive(self, project: ProjectKey, name: str) -> None:
        """Put a version away: it is listed, and served no more.

        Raises:
            NotFound: there is no such version.
            Conflict: it is served, or about to be.
            StoreError
        """
        version = self.get(project, name)
        serving = self.versions.serving(project).values()
        under_way = [
            component
            for activation in self.versions.history(project)
            if activation.state in (ActivationState.REQUESTED, ActivationState.WARMED)
            for component in activation.components.values()
        ]
        if any(served.version_name == name for served in serving) or version.component in under_way:
            raise Conflict(f"The version {name!r} is served; roll back first.")
        self.versions.set_state(project, name, VersionState.ARCHIVED)

    def activation(self, project: ProjectKey, number: int) -> Activation:
        """Return how far a change has come.

        Raises:
            NotFound, StoreError
        """
        for activation in self.versions.history(project):
            if activation.id == number:
                return activation
        raise NotFound(f"Project {project} has no activation {number}.")
