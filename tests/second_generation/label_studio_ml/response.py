"""What predict may return."""

from __future__ import annotations

from typing import Any


class ModelResponse:
    """Predictions and their version."""

    def __init__(self, *, predictions: list[Any], model_version: str | None = None) -> None:
        self.predictions = predictions
        self.model_version = model_version

    def model_dump(self) -> dict[str, Any]:
        """Return it as a dictionary, as pydantic does."""
        return {"predictions": self.predictions, "model_version": self.model_version}
