"""The base class, with its values in memory instead of the toolkit's file."""

from __future__ import annotations

from typing import Any

CACHE: dict[tuple[str, str], str] = {}


class LabelStudioMLBase:
    """As the toolkit's 2.x: made anew for every request."""

    INITIAL_MODEL_VERSION = "0.0.1"
    TRAIN_EVENTS = (
        "ANNOTATION_CREATED",
        "ANNOTATION_UPDATED",
        "ANNOTATION_DELETED",
        "START_TRAINING",
    )

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        self.project_id = project_id or ""
        if label_config is not None:
            self.use_label_config(label_config)
        if not self.model_version:
            self.set("model_version", self.INITIAL_MODEL_VERSION)
        self.setup()

    def setup(self) -> None:
        """Prepare the model."""

    def use_label_config(self, label_config: str) -> None:
        """Keep the label config."""
        self.set("label_config", label_config)

    def get(self, key: str) -> str | None:
        """Return a value."""
        return CACHE.get((self.project_id, key))

    def set(self, key: str, value: str) -> None:
        """Keep a text."""
        if not isinstance(value, str):
            raise ValueError("Value must be a string")
        CACHE[self.project_id, key] = value

    def has(self, key: str) -> bool:
        """Return whether there is a value."""
        return (self.project_id, key) in CACHE

    @property
    def label_config(self) -> str | None:
        """The label config."""
        return self.get("label_config")

    @property
    def model_version(self) -> str | None:
        """The version."""
        return self.get("model_version")

    def get_local_path(self, url: str, **_: Any) -> str:
        """Fail: a model on our processes is to get ours."""
        raise AssertionError(f"the toolkit's own get_local_path was asked for {url}")

    def predict(self, tasks: list[Any], context: Any = None, **kwargs: Any) -> Any:
        """Return predictions."""
        return []

    def fit(self, event: str, data: Any, **kwargs: Any) -> Any:
        """Learn."""
