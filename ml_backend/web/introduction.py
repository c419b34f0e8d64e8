"""Makes the release of a project that Label Studio introduces, from the records alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

import structlog

from ml_backend.domain import LabelConfig, ProjectKey
from ml_backend.errors import BackendError, ConfigError, ModelError
from ml_backend.service.releasing import Releasing, Served
from ml_backend.web.dependencies import WebDependencies

_CONFIGS_KEPT = 64

log = structlog.get_logger(__name__)


class MakesReleases(Protocol):
    """Knows what a project serves."""

    def activate(self, project: ProjectKey, label_config: str) -> Served:
        """Make the project serve what this label config asks for, and return it."""
        ...


class Introductions:
    """Turns label configs into releases; never waits for an engine, never loads a network."""

    def __init__(self, dependencies: WebDependencies) -> None:
        self._own = dependencies
        # Label Studio sends the same config before every page and prediction
        parse: Callable[[str], LabelConfig] = lru_cache(maxsize=_CONFIGS_KEPT)(
            dependencies.parse_label_config
        )
        self._releasing: MakesReleases = dependencies.toolkit or Releasing(
            models=dependencies.models,
            revision=dependencies.revision,
            parse=parse,
            components=dependencies.components,
            versions=dependencies.versions,
            releases=dependencies.releases,
        )

    def introduce(
        self,
        key: ProjectKey,
        *,
        label_config: str,
        hostname: str | None,
        access_token: str | None,
    ) -> Served:
        """Record the project and activate the release of its label config.

        A control keeps the network that was trained for it, whatever else changed in the config,
        until it asks for another base model.

        Raises:
            ConfigError: the label config cannot be served.
            ModelError: a model it names cannot be served.
            EngineUnavailable: no engine has looked for such a model yet; it is asked to.
            StoreError
        """
        problem: BackendError | None = None
        known = self._own.projects.get(key)
        try:
            served = self._releasing.activate(key, label_config)
            if known is None or known.label_config != label_config:
                for warning in served.warnings:
                    log.warning("label config", project=str(key), warning=warning)
            return served
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
