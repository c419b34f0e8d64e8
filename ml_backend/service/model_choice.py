"""Which network a program may ask for by name, over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ml_backend.domain import CLASSIFIER, Component
from ml_backend.errors import ModelError
from ml_backend.model_files.known import AUTO, model_names
from ml_backend.service.dataset_sources import AllowedPaths
from ml_backend.service.model_names import ModelNames


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Finds networks for callers, who may not name every file of this machine."""

    resolve: Callable[[str], Component]  # knows names and any path; raises ModelError
    names: ModelNames
    paths: AllowedPaths  # what checkpoints may lie in
    default: str  # what MODEL names

    def choose(self, name: str) -> Component:
        """Return the network of that name: auto, built in, trained, a session's, or a path.

        Raises:
            BadRequest: it is a path that must not be read.
            ModelNotFound: there is none.
            ModelError: it cannot be served, or finds no masks.
            StoreError
        """
        if name == AUTO:
            component = self.resolve(self.default)
        elif name in model_names() or self.names.find(name) is not None:
            component = self.resolve(name)
        elif Path(name).is_absolute():
            component = self.resolve(str(self.paths.find(name, what="checkpoint")))
        else:  # a relative path would depend on where the engine was started
            raise self.names.unknown(name)
        if component.architecture == CLASSIFIER:
            raise ModelError(f"The model {component.name!r} finds no masks; name a network.")
        return component
