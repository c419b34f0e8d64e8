"""Which release a project serves where a toolkit class answers: its source, and its own version.

The web process, the engine and the trainer's subprocesses make releases here, from the same rows.
Nothing here imports the class.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from ml_backend.domain import TOOLKIT, Component, ProjectKey, Release
from ml_backend.errors import EngineUnavailable, ModelError
from ml_backend.service.releasing import ATTEMPTS, Served
from ml_backend.store.components import Components
from ml_backend.store.releases import Releases
from ml_backend.store.toolkit_values import ToolkitValues

MODEL_VERSION = "model_version"
"""The key under which the toolkit keeps a class's version."""

FIRST_VERSION = "0.0.1"
"""The version of a class that has set none, as in the toolkit."""


@dataclass(frozen=True, kw_only=True)
class ToolkitReleasing:
    """Makes the releases of projects, and activates them.

    A class is what it has set for a project. So there is one release that can be served at a
    time, and it follows `model_version`: nobody can go back to an earlier one but the class itself.
    """

    requested: str  # name of the class in the table of components
    revision: str  # of how answers are read
    components: Components
    values: ToolkitValues
    releases: Releases

    def activate(self, project: ProjectKey, label_config: str) -> Served:
        """Make the project serve this label config, and return what that is.

        Raises:
            ModelError: the class cannot be served.
            EngineUnavailable: no engine has imported it yet.
            StoreError
        """
        for _ in range(ATTEMPTS):
            pointer = self.releases.pointer(project)
            release = self.make(project, label_config)
            if self.releases.activate_after(project, release.version, pointer):
                break
        return Served(release=release, warnings=())

    def refresh(self, project: ProjectKey, release: Release) -> Release:
        """Return the release of the same label config as things stand now.

        Where `release` is what the project serves, it serves that one from now on: the class has
        set another version.

        Raises:
            ModelError, EngineUnavailable, StoreError
        """
        pointer = self.releases.pointer(project)
        now = self.make(project, release.label_config)
        if now.version != release.version and pointer and pointer.version == release.version:
            self.releases.activate_after(project, now.version, pointer)
        return now

    def make(self, project: ProjectKey, label_config: str) -> Release:
        """Return the release of a label config as things stand, made if it is new.

        Raises:
            ModelError, EngineUnavailable, StoreError
        """
        component = component_of(self._source(), self.values.get(project, MODEL_VERSION))
        return self.releases.ensure(
            project,
            components={TOOLKIT: component},
            # a class may read anything in it
            canonical_config={"label_config": label_config},
            label_config=label_config,
            revision=self.revision,
        )

    def _source(self) -> Component:
        resolution = self.components.want(self.requested)
        if resolution.component is not None:
            return resolution.component
        if resolution.problem is not None:
            raise ModelError(resolution.problem)
        raise EngineUnavailable(
            "The engine is still importing the class that TOOLKIT_MODEL names; try again in a few "
            "seconds."
        )


def component_of(source: Component, model_version: str | None) -> Component:
    """Return what a class is for a project.

    Args:
        source: The class as it was imported; its hash is of its source files.
        model_version: That it has set for the project, None before it did.
    """
    version = model_version or FIRST_VERSION
    digest = hashlib.sha256(f"{source.sha256}\n{version}".encode("utf-8", "replace"))
    return replace(source, name=f"{source.name}-{version}", sha256=digest.hexdigest())
