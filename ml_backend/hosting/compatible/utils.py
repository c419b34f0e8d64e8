"""The helpers that classes import from `label_studio_ml.utils`."""

from __future__ import annotations

import difflib
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageOps

from ml_backend.hosting.file_addresses import is_preload_needed, is_valid_url
from ml_backend.hosting.ports import current_project, ports

__all__ = [
    "DATA_UNDEFINED_NAME",
    "InMemoryLRUDictCache",
    "get_choice",
    "get_env",
    "get_first_tag_keys",
    "get_image_local_path",
    "get_image_size",
    "get_local_path",
    "get_single_tag_keys",
    "is_preload_needed",
    "is_skipped",
    "is_valid_url",
    "match_labels",
]

DATA_UNDEFINED_NAME = "$undefined$"
"""The key of task data where the label config names none."""


def get_single_tag_keys(
    parsed_label_config: Mapping[str, Any], control_type: str, object_type: str
) -> tuple[str, str, str, list[str]]:
    """Return (from_name, to_name, value, labels) of a label config with one control.

    Raises:
        AssertionError: it has several, or of other types, as in the toolkit.
    """
    if len(parsed_label_config) != 1:
        raise AssertionError(
            f"The label config has {len(parsed_label_config)} controls and this model wants "
            "exactly one."
        )
    [(from_name, control)] = parsed_label_config.items()
    if control["type"] != control_type:
        raise AssertionError(
            f"The label config has the control <{control['type']}> and this model wants "
            f"<{control_type}>."
        )
    if len(control["to_name"]) != 1 or len(control["inputs"]) != 1:
        raise AssertionError(f"The control {from_name!r} is to belong to exactly one object.")
    [to_name], [source] = control["to_name"], control["inputs"]
    if source["type"] != object_type:
        raise AssertionError(
            f"The control {from_name!r} belongs to <{source['type']}> and this model wants "
            f"<{object_type}>."
        )
    return from_name, to_name, source["value"], control["labels"]


def get_first_tag_keys(
    parsed_label_config: Mapping[str, Any], control_type: str, object_type: str
) -> tuple[str, Any] | tuple[None, None]:
    """Return name and description of the first control of these types, (None, None) without."""
    for from_name, control in parsed_label_config.items():
        sources = {source["type"] for source in control["inputs"]}
        if control["type"] == control_type and object_type in sources:
            return from_name, control
    return None, None


def is_skipped(completion: Mapping[str, Any]) -> bool:
    """Return whether the one annotation of a task says that it was skipped."""
    annotations = completion["annotations"]
    if len(annotations) != 1:
        return False
    return bool(annotations[0].get("skipped") or annotations[0].get("was_cancelled"))


def get_choice(completion: Mapping[str, Any]) -> Any:
    """Return the first choice of a task's first annotation."""
    return completion["annotations"][0]["result"][0]["value"]["choices"][0]


def get_env(name: str, default: Any = None, is_bool: bool = False) -> Any:
    """Return an environment variable, also under its name with LABEL_STUDIO_ or HEARTEX_."""
    for prefix in ("LABEL_STUDIO_", "HEARTEX_", ""):
        value = os.environ.get(prefix + name)
        if value is not None:
            return value.lower() in ("1", "true", "yes", "on") if is_bool else value
    return default


def get_local_path(url: str, *_: Any, task_id: int | None = None, **__: Any) -> str:
    """Return the path of a task's file; use the method of the class where there is one.

    It belongs to the project whose task is predicted or whose event is fitted at the moment.
    """
    return str(ports().fetch(current_project.get(), url, task_id))


def get_image_local_path(url: str, *_: Any, task_id: int | None = None, **__: Any) -> str:
    """Return the path of a task's image."""
    return get_local_path(url, task_id=task_id)


def get_image_size(filepath: str) -> tuple[int, int]:
    """Return width and height of an image as a browser shows it, in pixels."""
    with Image.open(filepath) as image:
        return ImageOps.exif_transpose(image).size


class InMemoryLRUDictCache:
    """The things used last, at most `capacity` of them."""

    def __init__(self, capacity: int = 1) -> None:
        self.capacity = capacity
        self.cache: OrderedDict[Any, Any] = OrderedDict()

    def __contains__(self, item: Any) -> bool:
        return item in self.cache

    def __str__(self) -> str:
        return str(self.cache)

    def get(self, key: Any) -> Any:
        """Return what is kept under a key, None where there is nothing."""
        if key not in self.cache:
            return None
        self.cache.move_to_end(key)
        return self.cache[key]

    def put(self, key: Any, value: Any) -> None:
        """Keep something, and let go of what was not used for longest."""
        self.cache[key] = value
        self.cache.move_to_end(key)
        while len(self.cache) > self.capacity:
            self.cache.popitem(last=False)


def match_labels(input: str, labels: Sequence[str]) -> list[str]:
    """Return for each line of a text the label that it resembles most."""

    def likeness(line: str, label: str) -> float:
        return difflib.SequenceMatcher(None, line, label).ratio()

    return [
        max(labels, key=lambda label: likeness(line, label))  # used at once
        for line in input.splitlines()
    ]
