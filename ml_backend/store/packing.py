"""JSON in columns: plain where it is short, compressed where it may be long."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import orjson

from ml_backend.domain import Component
from ml_backend.errors import StoreError

_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
_COMPONENT_FIELDS = frozenset(field.name for field in fields(Component))


def to_json(value: Any) -> bytes:
    """Return `value` as JSON with sorted keys, equal for equal values.

    Raises:
        StoreError: JSON cannot hold it.
    """
    try:
        return orjson.dumps(value, option=_OPTIONS)
    except TypeError as error:  # also integers beyond 64 bits
        raise StoreError(
            f"The records cannot hold a value that is no JSON ({error}); leave it out."
        ) from error


def from_json(stored: bytes) -> Any:
    """Return the value that `to_json` wrote."""
    return orjson.loads(stored)


def compress(value: Any) -> bytes:
    """Return `value` as compressed JSON.

    Raises:
        StoreError: JSON cannot hold it.
    """
    return zlib.compress(to_json(value), 1)


def decompress(stored: bytes | None, *, default: Any) -> Any:
    """Return the value that `compress` wrote, `default` for None."""
    return default if stored is None else orjson.loads(zlib.decompress(stored))


def component_to_json(component: Component) -> dict[str, Any]:
    """Return a component as a JSON-able mapping."""
    return asdict(component)


def component_from_json(stored: Mapping[str, Any]) -> Component:
    """Return the component of a mapping; fields that it lacks get their defaults."""
    known = {name: value for name, value in stored.items() if name in _COMPONENT_FIELDS}
    return Component(**known)
