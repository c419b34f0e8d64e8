"""Makes the release of a project that Label Studio introduces, from the records alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import structlog

from ml_backend.domain import Component, LabelConfig, ProjectKey, Release
from ml_backend.errors import BackendError, ConfigError, EngineUnavailable, ModelError
from ml_backend.labelstudio.controls import canonical_config
from ml_backend.web.dependencies import WebDependencies

_CONFIGS_KEPT = 64

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Introduced:
    """What a project serves now."""

    release: Release
    warnings: tuple[str, ...]  # a sentence each, about the label config


class Introductions:
    """Turns label configs into releases; never waits for an engine, never loads a network."""

    def __init__(self, dependencies: WebDependencies) -> None:
        self._own = dependencies
        # Label Studio sends the same config before every page and prediction
        self._parse: Callable[[str], LabelConfig] = lru_cache(maxsize=_CONFIGS_KEPT)(
            dependencies.parse_label_config
        )

    def introduce(
        self,
        key: ProjectKey,
        *,
        label_config: str,
        hostname: str | None,
        access_token: str | None,
    ) -> Introduced:
        """Record the project and activate the release of its label config.

        Raises:
            ConfigError: the label config cannot be served.
            ModelError: a model it names cannot be served.
            EngineUnavailable: no engine has looked for such a model yet; it is asked to.
            StoreError
        """
        problem: BackendError | None = None
        known = self._own.projects.get(key)
        try:
            introduced = self._activate(key, label_config)
            if known is None or known.label_config != label_config:
                for warning in introduced.warnings:
                    log.warning("label config", project=str(key), warning=warning)
            return introduced
        except (ConfigError, ModelError) as error:
            problem = error
            log.warning("project cannot be served", project=str(key), reason=error.message)
            raise
        finally:
            self._own.projects.record(
                key,
                hostname=hostname,
                access_token=access_token,
                label_config=label_config,
                label_config_error=None if problem is None else problem.message,
            )

    def _activate(self, key: ProjectKey, label_config: str) -> Introduced:
        config = self._parse(label_config)
        if not config.controls:
            raise ConfigError
        release = self._own.releases.ensure(
            key,
            components={
                control.name: self._component(control.segmentation.model or self._own.model)
                for control in config.controls
            },
            canonical_config=canonical_config(config),
            label_config=label_config,
            revision=self._own.revision,
        )
        self._own.releases.activate(key, release.version)
        return Introduced(release=release, warnings=config.warnings)

    def _component(self, requested: str) -> Component:
        resolution = self._own.components.want(requested)
        if resolution.component is not None:
            return resolution.component
        if resolution.problem is not None:
            raise ModelError(resolution.problem)
        raise EngineUnavailable(
            f"The engine is still preparing the model {requested!r}; try again in a few seconds."
        )
