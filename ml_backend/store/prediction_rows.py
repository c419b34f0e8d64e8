"""Rows of kept predictions: their keys, and predictions as compressed JSON."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson
from sqlalchemy import ColumnElement, CursorResult, tuple_

from ml_backend.domain import Prediction
from ml_backend.store.schema import PredictionRow

KEY_COLUMNS = (
    PredictionRow.project,
    PredictionRow.task_id,
    PredictionRow.version,
    PredictionRow.input_hash,
)
"""The columns of the primary key, in the order of `identity`."""

_CHUNK = 200  # keys per statement: SQLite allows 999 variables in its older builds


class RowState(StrEnum):
    """What a row holds."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class PredictionKey:
    """What a prediction is of."""

    project: str  # str(ProjectKey)
    task_id: int
    version: str  # of the release
    input_hash: str  # of the task's data as far as the prediction depends on it


def identity(key: PredictionKey) -> tuple[str, int, str, str]:
    """Return the primary key of a prediction's row."""
    return key.project, key.task_id, key.version, key.input_hash


def key_of(row: PredictionRow) -> PredictionKey:
    """Return what the prediction in `row` is of."""
    return PredictionKey(
        project=row.project,
        task_id=row.task_id,
        version=row.version,
        input_hash=row.input_hash,
    )


def is_one_of(keys: Sequence[PredictionKey]) -> ColumnElement[bool]:
    """Return the condition that a row belongs to one of `keys`."""
    return tuple_(*KEY_COLUMNS).in_([identity(key) for key in keys])


def in_chunks(keys: Sequence[PredictionKey]) -> list[Sequence[PredictionKey]]:
    """Return `keys` in parts that one statement can name."""
    return [keys[start : start + _CHUNK] for start in range(0, len(keys), _CHUNK)]


def rows_of(result: Any) -> int:
    """Return how many rows an UPDATE or DELETE met."""
    return result.rowcount if isinstance(result, CursorResult) else 0


def pack(prediction: Prediction) -> bytes:
    """Return the prediction as compressed JSON."""
    entry = orjson.dumps(
        {**prediction.to_json(), "cluster": prediction.cluster}, option=orjson.OPT_SERIALIZE_NUMPY
    )
    return zlib.compress(entry, 1)


def unpack(row: PredictionRow) -> Prediction:
    """Return the prediction in a row that is done."""
    entry = orjson.loads(zlib.decompress(row.entry or b""))
    # to_json writes 0.0 for "no objects"; both read the same to Label Studio
    return Prediction(
        result=entry["result"],
        score=entry["score"],
        model_version=entry["model_version"],
        cluster=entry.get("cluster"),
    )
