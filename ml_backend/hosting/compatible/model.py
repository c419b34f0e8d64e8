"""The base class of the toolkit's 2.x API, as `label_studio_ml.model` has it.

Its names, signatures and defaults are those of the toolkit, down to the spelling of
`get_first_tag_occurence`: existing classes are to run unchanged.
"""

from __future__ import annotations

import json
import re
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_backend.hosting.bound import Bound
from ml_backend.hosting.file_addresses import is_preload_needed
from ml_backend.hosting.labels import map_labels
from ml_backend.hosting.registered import predict_fn, registered, update_fn

__all__ = ["LabelStudioMLBase", "predict_fn", "update_fn"]

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)(.*)", re.DOTALL)


class LabelStudioMLBase(Bound, ABC):
    """What models inherit from: override `setup`, `predict` and `fit`."""

    INITIAL_MODEL_VERSION = "0.0.1"

    TRAIN_EVENTS = (
        "ANNOTATION_CREATED",
        "ANNOTATION_UPDATED",
        "ANNOTATION_DELETED",
        "START_TRAINING",
    )

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        self.project_id = project_id or ""
        self._of_label_config: dict[str, str] = {}
        if label_config is not None:
            self.use_label_config(label_config)
        if not self.model_version:
            self.set("model_version", self.INITIAL_MODEL_VERSION)
        self.setup()

    def setup(self) -> None:  # classes that need none leave it out
        """Prepare the model; called whenever an instance was made."""

    def predict(
        self, tasks: list[dict[str, Any]], context: dict[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """Return predictions for tasks: a `ModelResponse`, or a list with one entry a task."""
        function = registered("predict")
        return function(tasks, context, helper=self, **kwargs) if function else []

    def fit(self, event: str, data: dict[str, Any], **additional_params: Any) -> Any:
        """Learn from an event of Label Studio."""
        function = registered("update")
        return function(event, data, helper=self, **additional_params) if function else None

    def process_event(
        self, event: str, data: dict[str, Any], job_id: str, additional_params: Mapping[str, Any]
    ) -> Any:
        """Call `fit` for an event that is one of `TRAIN_EVENTS`."""
        if event not in self.TRAIN_EVENTS:
            return None
        return self.fit(event=event, data=data, job_id=job_id, **additional_params)

    def use_label_config(self, label_config: str) -> None:
        """Read a label config into `label_interface`."""
        from label_studio_sdk.label_interface import LabelInterface  # takes half a second

        self.label_interface = LabelInterface(config=label_config)
        self._of_label_config = {"label_config": label_config}

    def get(self, key: str) -> str | None:
        """Return what the class has set for this project, None where there is nothing."""
        if key == "parsed_label_config" and "label_config" in self._of_label_config:
            return json.dumps(self.parsed_label_config)
        return self._of_label_config.get(key) or super().get(key)

    @property
    def label_config(self) -> str | None:
        """The project's label config, XML."""
        return self.get("label_config")

    @property
    def parsed_label_config(self) -> dict[str, Any]:
        """The label config's controls by name, as the toolkit's `parse_config` reads them."""
        from label_studio_sdk._extensions.label_studio_tools.core.label_config import parse_config

        parsed: dict[str, Any] = parse_config(self._of_label_config.get("label_config"))
        return parsed

    def set_extra_params(self, extra_params: Any) -> None:
        """Keep the extra parameters; Label Studio's are kept already."""
        text = extra_params if isinstance(extra_params, str) else json.dumps(extra_params)
        self.set("extra_params", text)

    @property
    def extra_params(self) -> Any:
        """What is entered for the backend in Label Studio, {} where nothing is."""
        text = self.get("extra_params")
        return json.loads(text) if text else {}

    @property
    def model_version(self) -> str | None:
        """The version that the class has set last."""
        return self.get("model_version")

    def bump_model_version(self) -> str:
        """Raise the middle number of the version, and return the version that is set since.

        Raises:
            ValueError: it is not three numbers.
        """
        found = _VERSION.fullmatch(self.model_version or self.INITIAL_MODEL_VERSION)
        if found is None:
            raise ValueError(
                f"The version {self.model_version!r} is not like 1.2.3 and cannot be raised; set "
                "the next one yourself."
            )
        bumped = f"{found[1]}.{int(found[2]) + 1}.0"
        self.set("model_version", bumped)
        return bumped

    def get_first_tag_occurence(
        self,
        control_type: str | tuple[str, ...],
        object_type: str | tuple[str, ...],
        name_filter: Callable[[str], bool] | None = None,
        to_name_filter: Callable[[str], bool] | None = None,
    ) -> tuple[str, str, str]:
        """Return (from_name, to_name, value) of the first control of these types."""
        found: tuple[str, str, str] = self.label_interface.get_first_tag_occurence(
            control_type=control_type,
            object_type=object_type,
            name_filter=name_filter,
            to_name_filter=to_name_filter,
        )
        return found

    def build_label_map(self, tag_name: str, names: Sequence[str]) -> dict[str, str]:
        """Return which of the config's labels each of a model's class names stands for.

        A label names them in its attribute `predicted_values`; else it has the same name, whatever
        the case.
        """
        labels = self.label_interface.get_control(tag_name).labels_attrs or {}
        asked = {name: tag.attr.get("predicted_values", "") for name, tag in labels.items()}
        return map_labels(asked, names)

    def preload_task_data(
        self, task: dict[str, Any], value: Any = None, read_file: bool = True
    ) -> Any:
        """Return a value of task data with every file's address in it replaced.

        Args:
            task: Whose.
            value: A text, or lists and dictionaries of texts; None as in the toolkit.
            read_file: Whether by the file's content as text, else by its path.
        """
        if isinstance(value, dict):
            for key, item in value.items():
                value[key] = self.preload_task_data(task, item, read_file)
            return value
        if isinstance(value, list):
            return [self.preload_task_data(task, item, read_file) for item in value]
        if not isinstance(value, str) or not is_preload_needed(value):
            return value
        path = self.get_local_path(url=value, task_id=task.get("id"))
        return Path(path).read_text(encoding="utf-8") if read_file else path
