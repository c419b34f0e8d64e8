"""What the label configs of projects say about learning, read once each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from ml_backend.domain import LabelConfig, ProjectKey
from ml_backend.labelstudio.learning_options import read_learning_options
from ml_backend.labelstudio.targets import AnyTarget, targets_of
from ml_backend.learning import LearningOptions
from ml_backend.store.projects import Projects

_CONFIGS_KEPT = 64


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a project's label config says about learning."""

    options: LearningOptions
    config: LabelConfig
    targets: tuple[AnyTarget, ...]


class Plans:
    """Reads them; safe for many threads."""

    def __init__(
        self,
        projects: Projects,
        parse: Callable[[str], LabelConfig],
        defaults: LearningOptions,
    ) -> None:
        """Prepare it.

        Args:
            projects: The records.
            parse: Reads label configs; raises ConfigError.
            defaults: How projects are trained that say nothing of it.
        """
        self._projects = projects

        def read(label_config: str) -> Plan:
            config = parse(label_config)
            options, _ = read_learning_options(label_config, defaults)
            return Plan(options=options, config=config, targets=targets_of(config))

        self._read = lru_cache(maxsize=_CONFIGS_KEPT)(read)

    def of(self, project: ProjectKey) -> Plan | None:
        """Return what a project's label config says, None for a project that is unknown.

        Raises:
            ConfigError, StoreError
        """
        found = self._projects.get(project)
        return None if found is None else self._read(found.label_config)
