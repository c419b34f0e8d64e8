"""Where an Image tag's `value` points to in the data of a task."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ml_backend.errors import BadRequest
from ml_backend.labelstudio.options import shown

_VARIABLE = re.compile(r"\$[\w\[\].{}]+")
_STEP = re.compile(r"[^.\[\]]+")
_MISSING = object()


def parse_value_key(value: str) -> str | None:
    """Return the key that `value` names, None when it names none.

    `$image` gives "image"; paths as Label Studio's front end resolves them stay paths
    (`$data.image`, `$images[0]`); a text with a variable inside, like
    "https://example.org/$file", is kept as it is. `read_value` understands all three.
    """
    value = value.strip()
    if _VARIABLE.fullmatch(value):
        return value[1:]
    return value if _VARIABLE.search(value) else None


def read_value(data: Mapping[str, Any], key: str) -> str:
    """Return the image's address that a control's `value_key` names in a task's data.

    Raises:
        BadRequest: when the task has no text there.
    """
    if "$" in key:
        return _VARIABLE.sub(lambda match: _text_at(data, match.group()[1:]), key)
    return _text_at(data, key)


def _text_at(data: Mapping[str, Any], path: str) -> str:
    value = _look_up(data, path)
    if value is _MISSING or value is None or value == "":
        raise BadRequest(
            f"The task's data has no {shown(path)}, which the label config names as the image's "
            "address; import the task with that field."
        )
    if isinstance(value, list) and len(value) == 1:  # shown by Label Studio as its only image
        value = value[0]
    if not isinstance(value, str):
        raise BadRequest(
            f"The task's {shown(path)} is not one image address but {type(value).__name__}; "
            "import one address per field."
        )
    return value


def _look_up(data: Mapping[str, Any], path: str) -> Any:
    if path in data:
        return data[path]
    found: Any = data
    for step in _STEP.findall(path):
        if isinstance(found, Mapping) and step in found:
            found = found[step]
        elif isinstance(found, list) and step.isdecimal() and int(step[:9]) < len(found):
            found = found[int(step[:9])]
        else:
            return _MISSING
    return found
