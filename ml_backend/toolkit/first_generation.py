"""What the toolkit's 1.0.9 cannot do by itself.

It answers /setup with a version of its own, "INITIAL" or a time, which no prediction of ours
carries; Label Studio would then ask for every task again at every opening, and store one row more
each time. The version goes through a small class of the toolkit, which is given a version that asks
the model.
"""

from __future__ import annotations

import importlib
from typing import Any


def let_models_name_their_version() -> None:
    """Have /setup and /predict of the toolkit answer what a `CellBackend` serves.

    Other models keep the toolkit's versions. Twice does no harm.
    """
    module = importlib.import_module("label_studio_ml.model")
    wrapper: Any = module.ModelWrapper
    if hasattr(wrapper, "asks_the_model"):
        return

    class AskingWrapper(wrapper):  # type: ignore[misc]  # the toolkit has no types
        asks_the_model = True

        def __init__(self, model: Any, model_version: Any = None, **more: Any) -> None:
            super().__init__(model=model, model_version=model_version, **more)

        @property
        def model_version(self) -> Any:
            served = getattr(self.model, "served_version", None)
            return served() if callable(served) else self._of_toolkit

        @model_version.setter
        def model_version(self, version: Any) -> None:
            self._of_toolkit = version

    module.ModelWrapper = AskingWrapper  # type: ignore[attr-defined]
