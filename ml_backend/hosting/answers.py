"""What `predict` of a toolkit class returns -> predictions that Label Studio can take.

One bad entry makes Label Studio refuse a whole batch and lock the annotator out of the task, so
everything that is not as it must be is left out here, with a sentence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from ml_backend.errors import ToolkitError

RELATION = "relation"  # a region that only ties two others together


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The prediction of one task."""

    result: list[dict[str, Any]]
    score: float | None
    notes: tuple[str, ...] = field(default=())  # a sentence on each thing that was left out


def entries_of(answer: Any, count: int) -> list[Any]:
    """Return the entries of what `predict` returned for `count` tasks, None for none.

    A `ModelResponse` counts, a list with one entry a task, and a dictionary that has one under
    `predictions` or `results`. Nothing at all, as models return before their first training, is
    no prediction for any task.

    Raises:
        ToolkitError: it is none of these, or has another number of entries.
    """
    found = _plain(answer)
    if isinstance(found, dict):
        found = found.get("predictions", found.get("results"))
    if not found and (found is None or isinstance(found, list | tuple)):
        return [None] * count
    if not isinstance(found, list | tuple):
        raise ToolkitError(
            f"predict() returned {type(answer).__name__}, and Label Studio wants a list with a "
            "prediction for each task or a ModelResponse."
        )
    if len(found) != count:
        raise ToolkitError(
            f"predict() returned {len(found)} predictions for {count} tasks; return one for each, "
            "in their order, and {} where there is none."
        )
    return list(found)


def read_entry(entry: Any, is_known: Callable[[str], bool]) -> Answered | None:
    """Return the prediction of a task, None where the class gave none.

    Args:
        entry: One of `entries_of`. Of several predictions of a task the first counts.
        is_known: Whether the label config has a tag of that name.

    Raises:
        ToolkitError: Label Studio could not take it, whatever were left out.
    """
    notes = []
    found = _plain(entry)
    if isinstance(found, list | tuple):
        if len(found) > 1:
            notes.append(f"Of {len(found)} predictions for one task the first is taken.")
        found = _plain(found[0]) if found else None
    if not found:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("result"), list | tuple):
        raise ToolkitError(
            "predict() returned a prediction without a list of regions; it is to look like "
            '{"result": [...], "score": 0.5}.'
        )
    result = []
    for region in found["result"]:
        wrong, plain = _checked(region, is_known)
        if plain is None:
            notes.append(wrong)
        else:
            result.append(plain)
    if found["result"] and not result:
        raise ToolkitError(f"predict() returned no region that can be shown: {notes[-1]}")
    return Answered(result=result, score=_score(found.get("score")), notes=tuple(notes))


def _checked(region: Any, is_known: Callable[[str], bool]) -> tuple[str, dict[str, Any] | None]:
    """Return what is wrong with a region, and its JSON where nothing is."""
    try:
        plain = json.loads(json.dumps(_plain(region), allow_nan=False, default=_plain_or_raise))
        orjson.dumps(plain)  # which writes the answer, and no whole numbers over 64 bits
    except (TypeError, ValueError, RecursionError) as error:
        return f"A region cannot be written as JSON ({error}).", None
    if not isinstance(plain, dict):
        return f"A region is no object but {type(region).__name__}.", None
    kind = plain.get("type")
    if not isinstance(kind, str) or kind != kind.lower():
        return f'A region\'s "type" is {kind!r}, and must be a tag in small letters.', None
    if kind == RELATION:
        return "", plain
    if not isinstance(plain.get("value"), dict):
        return f'A region of type {kind!r} has no "value".', None
    for key in ("from_name", "to_name"):
        name = plain.get(key)
        if not isinstance(name, str) or not is_known(name):
            return f'A region\'s "{key}" is {name!r}, and the label config has no such tag.', None
    return "", plain


def _score(score: Any) -> float | None:
    try:
        number = float(score)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _plain(value: Any) -> Any:
    """Return the dictionary of a pydantic model, and anything else as it is."""
    dump = getattr(value, "model_dump", None)
    return dump() if callable(dump) else value


def _plain_or_raise(value: Any) -> Any:
    """Return what JSON has for a value that the encoder does not know: of numpy, of pydantic."""
    for method in ("model_dump", "tolist"):
        convert = getattr(value, method, None)
        if callable(convert):
            return convert()
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


def complaint(errors: Sequence[str]) -> str | None:
    """Return the first of Label Studio's own complaints about a prediction, None without."""
    if not errors:
        return None
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{str(errors[0])[:300]}{more}"
