"""What a person does with versions: activate them, go back, put them away, delete them.

Nothing is served by these calls themselves: they leave a row that an engine carries out, and
`activation` tells how far it has come. The command line and the API share them. Nothing here
imports a network library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import structlog

from ml_backend.datasets import is_dataset
from ml_backend.domain import DefaultModels, LabelConfig, ProjectKey
from ml_backend.errors import BadRequest, Conflict, NotFound, StoreError
from ml_backend.learning import UPLOADS, Activation, Version, VersionState, origin_of
from ml_backend.model_files.folders import remove_folder
from ml_backend.model_files.manifests import MANIFEST_FILE
from ml_backend.service.model_uses import ModelUses
from ml_backend.service.serving_elsewhere import origins_for
from ml_backend.store.components import Components
from ml_backend.store.projects import Projects
from ml_backend.store.releases import Releases
from ml_backend.store.versions import Versions

log = structlog.get_logger(__name__)


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
    path = Path(version.component.path).parent / MANIFEST_FILE
    try:
        manifest = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


@dataclass(frozen=True, kw_only=True)
class VersionDesk:
    """Lists and changes what projects serve."""

    projects: Projects
    versions: Versions
    releases: Releases
    components: Components
    uses: ModelUses
    models: DefaultModels  # what the settings name
    parse: Callable[[str], LabelConfig]  # raises ConfigError

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
                        and served.version_project in (None, project)
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

    def activate(
        self,
        project: ProjectKey,
        name: str,
        *,
        by: str,
        target: ProjectKey | None = None,
        controls: Sequence[str] | None = None,
    ) -> Activation:
        """Ask for a version to be served, whatever the gate said of it.

        Args:
            project: whose version: a project's, a dataset's, or `UPLOADS`.
            name: of the version.
            by: who asks, for the record.
            target: the project that shall serve it; None = its own.
            controls: that it shall be served for; None = those that it was trained for, in another
                project all that are fed with masks.

        Raises:
            NotFound: there is no such version.
            BadRequest: it belongs to no project, or the project has no such controls.
            Conflict: it cannot be loaded, was put away, or answers for classes of its own project.
            ConfigError: the project's label config cannot be used.
            StoreError
        """
        version = self.get(project, name)
        if version.state is VersionState.REFUSED:
            raise Conflict(f"The version {name!r} cannot be served: {version.message}")
        if version.state is VersionState.ARCHIVED:
            raise Conflict(f"The version {name!r} was put away; train again or choose another.")
        if target is None and (project == UPLOADS or is_dataset(project)):
            raise BadRequest(
                f"The model {name!r} belongs to no Label Studio project; name the project that "
                "shall serve it."
            )
        target = target or project
        if target == project and (controls is None or set(controls) <= set(version.controls)):
            wanted = version.controls if controls is None else tuple(dict.fromkeys(controls))
            origins = dict.fromkeys(wanted, origin_of(version))
        else:
            config = self.parse(self._label_config(target))
            origins = origins_for(version, target, config, controls, self.models)
        if not origins:
            raise BadRequest("Name at least one control that shall be served with the model.")
        return self.versions.request(
            target,
            components=dict.fromkeys(origins, version.component),
            reason=f"{by} activated {name}",
            origins=origins,
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

    def archive(self, project: ProjectKey, name: str) -> Version:
        """Put a version away: it is listed, and can be served no more.

        Raises:
            NotFound: there is no such version.
            Conflict: it is served or about to be, or a session starts from it.
            StoreError
        """
        version = self.get(project, name)
        reason = self.uses.of(version, files_stay=True)
        if reason is not None:
            raise Conflict(f"The model {name!r} cannot be put away: {reason}.")
        self.versions.set_state(project, name, VersionState.ARCHIVED)
        self.components.forget_file(version.component.path)
        return self.get(project, name)

    def delete(self, project: ProjectKey, name: str) -> None:
        """Forget a version and remove its files; what was served of it before is not to be had.

        Raises:
            NotFound: there is no such version.
            Conflict: something needs it; the sentence says what.
            StoreError: its folder cannot be removed.
        """
        version = self.get(project, name)
        reason = self.uses.of(version)
        if reason is not None:
            raise Conflict(f"The model {name!r} cannot be deleted: {reason}.")
        # From here on nobody gets it any more; whoever dies before the end leaves a version that
        # can be deleted again. An activation that came between finds no file, and is refused.
        self.versions.set_state(project, name, VersionState.ARCHIVED)
        self.components.forget_file(version.component.path)
        if _is_its_folder(version):
            folder = Path(version.component.path).parent
            try:
                remove_folder(folder)
            except OSError as error:
                raise StoreError(
                    f"The folder {folder} cannot be removed ({error.strerror}); see to its "
                    "permissions, then delete the model again."
                ) from error
        self.versions.delete(project, name)
        log.info("model deleted", project=str(project), version=name)

    def activation(self, project: ProjectKey, number: int) -> Activation:
        """Return how far a change has come.

        Raises:
            NotFound, StoreError
        """
        for activation in self.versions.history(project):
            if activation.id == number:
                return activation
        raise NotFound(f"Project {project} has no activation {number}.")

    def _label_config(self, project: ProjectKey) -> str:
        found = self.projects.get(project)
        if found is None:
            raise NotFound(
                f"Label Studio has not introduced the project {project} yet; open it there once."
            )
        return found.label_config


def _is_its_folder(version: Version) -> bool:
    """Return whether a version lies in a folder that was made for it, here."""
    return _manifest(version).get("sha256") == version.component.sha256
