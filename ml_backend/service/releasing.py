"""Which release a project serves: its label config, its networks, and what was trained for it.

The web process and the engines both make releases. They do so here, from the same rows, so that
both get the same version string. Nothing here imports a network library.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from ml_backend.domain import (
    Component,
    DefaultModels,
    LabelConfig,
    ProjectKey,
    Release,
    ServedControl,
)
from ml_backend.errors import ConfigError, EngineUnavailable, ModelError
from ml_backend.labelstudio.controls import canonical_config
from ml_backend.labelstudio.targets import asked_by, requested_by
from ml_backend.store.components import Components
from ml_backend.store.releases import Releases
from ml_backend.store.versions import Serving, Versions

ATTEMPTS = 5  # each is lost only to a swap that came between


@dataclass(frozen=True, kw_only=True)
class Served:
    """A release and what a person should know about its label config."""

    release: Release
    warnings: tuple[str, ...]  # a sentence each


@dataclass(frozen=True, kw_only=True)
class Releasing:
    """Makes the releases of projects, and activates the one that a label config asks for."""

    models: DefaultModels  # what the settings name
    revision: str  # of the post-processing
    parse: Callable[[str], LabelConfig]  # raises ConfigError; remembers, where that is worth it
    components: Components
    versions: Versions
    releases: Releases

    def requested(self, control: ServedControl) -> str:
        """Return the base network or embedder that a control asks for."""
        return requested_by(control, self.models)

    def asked(self, control: ServedControl) -> str:
        """Return all that a control asks for; a trained network serves it for that only."""
        return asked_by(control, self.models)

    def activate(self, project: ProjectKey, label_config: str) -> Served:
        """Make the project serve what this label config asks for, and return it.

        A swap that ends meanwhile is never undone: then the release is made again.

        Raises:
            ConfigError: the label config cannot be served.
            ModelError: a model it names cannot be served.
            EngineUnavailable: no engine has looked for such a model yet; it is asked to.
            StoreError
        """
        for _ in range(ATTEMPTS):
            pointer = self.releases.pointer(project)
            served = self.make(project, label_config)
            if self.releases.activate_after(project, served.release.version, pointer):
                return served
        return served  # whoever is faster than us has activated the same

    def make(
        self,
        project: ProjectKey,
        label_config: str,
        *,
        changed: Mapping[str, Component] | None = None,
        removed: Collection[str] = (),
    ) -> Served:
        """Return the release of a label config with what the project serves, made if it is new.

        Args:
            project: whose it is.
            label_config: the XML.
            changed: networks to take instead, by control name.
            removed: names of controls that go back to their base network.

        Raises:
            ConfigError, ModelError, EngineUnavailable, StoreError
        """
        config = self.parse(label_config)
        if not config.served:
            raise ConfigError
        overrides = self.versions.serving(project)
        components = {}
        for control in config.served:
            if changed is not None and control.name in changed:
                components[control.name] = changed[control.name]
            elif control.name in removed:
                components[control.name] = self.base(control)
            else:
                components[control.name] = self.serves(control, overrides)
        release = self.releases.ensure(
            project,
            components=components,
            canonical_config=canonical_config(config),
            label_config=label_config,
            revision=self.revision,
        )
        return Served(release=release, warnings=config.warnings)

    def serves(self, control: ServedControl, overrides: Mapping[str, Serving]) -> Component:
        """Return the network of a control: the trained one that belongs to its base, or the base.

        Raises:
            ModelError, EngineUnavailable, StoreError
        """
        override = overrides.get(control.name)
        if override is not None and override.base_requested == self.asked(control):
            return override.component
        return self.base(control)

    def base(self, control: ServedControl) -> Component:
        """Return the network that a control asks for.

        Raises:
            ModelError: it cannot be served.
            EngineUnavailable: no engine has looked for it yet; it is asked to.
            StoreError
        """
        requested = self.requested(control)
        resolution = self.components.want(requested)
        if resolution.component is not None:
            return resolution.component
        if resolution.problem is not None:
            raise ModelError(resolution.problem)
        raise EngineUnavailable(
            f"The engine is still preparing the model {requested!r}; try again in a few seconds."
        )
