"""Checks what goes into /predict's answer, so that nothing can lock an annotator out.

Label Studio answers HTTP 400 or 500 to the annotator, for the whole batch, when one entry is not
as it expects; it discards all entries when their number is not that of the tasks. An empty entry
`{}` is always safe: that task is asked for again later.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import msgspec
import orjson


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A /predict answer that Label Studio can take."""

    body: bytes  # JSON, exactly one entry per task
    filled: int  # entries that hold a prediction
    replaced: int  # entries that were invalid and became {}


def empty_answer(count: int) -> Answer:
    """Return the answer that says "ask again later" for each of `count` tasks."""
    return Answer(body=orjson.dumps({"results": [{}] * count}), filled=0, replaced=0)


def check_answer(body: bytes, *, count: int, version: str) -> Answer:
    """Return the engine's answer for `count` tasks with every invalid entry replaced by {}.

    A valid answer's bytes are passed on as they are: they may be many megabytes.
    """
    entries = _split(body)
    if entries is None or len(entries) != count:
        return Answer(body=empty_answer(count).body, filled=0, replaced=count)
    filled = [is_valid_entry(entry, version) for entry in entries]
    kept = [ok or entry == b"{}" for ok, entry in zip(filled, entries, strict=True)]
    if not all(kept):
        checked = (entry if ok else b"{}" for ok, entry in zip(kept, entries, strict=True))
        body = b'{"results":[' + b",".join(checked) + b"]}"
    return Answer(body=body, filled=sum(filled), replaced=kept.count(False))


def is_valid_entry(entry: bytes, version: str) -> bool:
    """Return whether Label Studio stores `entry`, JSON, as a prediction of `version`."""
    try:
        prediction = msgspec.json.decode(entry, type=_Prediction)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return math.isfinite(prediction.score) and prediction.model_version == version


class _Region(msgspec.Struct):
    """Any JSON object; what is in it is skipped."""


class _Prediction(msgspec.Struct):
    result: list[_Region]
    score: float
    model_version: str


class _Results(msgspec.Struct):
    results: list[msgspec.Raw]


def _split(body: bytes) -> list[bytes] | None:
    """Return the entries' bytes, None when the answer has another shape."""
    try:
        return [bytes(entry) for entry in msgspec.json.decode(body, type=_Results).results]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    try:
        answer = json.loads(body)  # it reads NaN, so that one such score costs one entry only
        return [orjson.dumps(entry) for entry in answer["results"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
