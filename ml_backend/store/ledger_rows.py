"""Rows of the ledger: which of two facts wins, what a content hash covers, reading and writing.

All of a row follows from facts in a way that does not depend on their order: the newest state
said of an annotation, the newest word of its deletion, the newest snapshot that had it.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ml_backend.learning import Annotation, LabelledTask
from ml_backend.store.packing import compress, decompress, to_json
from ml_backend.store.schema import LedgerAnnotationRow, LedgerTaskRow

MAX_BYTES = 64 * 2**20  # of a compressed result, or of a task's data
CLOCK_SLACK_S = 3600.0
"""How much later than the word of a deletion a state must be to count in spite of it.

Label Studio never gives an id twice, and its word of a deletion carries no time: we take our own
clock's, which may be behind. Only a Label Studio that was put back from a backup goes on with ids
that were deleted, and then the states are much later.
"""

_VOLATILE = frozenset({"score", "meta", "readonly", "hidden", "locked"})  # keys of a region


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A state of an annotation, ready to be written."""

    annotation: Annotation  # with its content hash
    result: bytes | None  # compressed; None: too large to be kept
    problem: str | None  # a sentence, when it is not kept
    read_at: float  # when the snapshot that had it began; 0 for an event

    @property
    def order(self) -> tuple[float, float, str]:
        """What a newer state has more of."""
        annotation = self.annotation
        return annotation.updated_at, self.read_at, annotation.content_hash


def content_hash(annotation: Annotation) -> str:
    """Return a hash of all that decides what is learned from an annotation.

    Raises:
        StoreError: its result is no JSON.
    """
    content = [
        annotation.task_id,
        annotation.cancelled,
        annotation.ground_truth,
        annotation.parent_prediction,
        [_stable(region) for region in annotation.result],
    ]
    return hashlib.sha256(to_json(content)).hexdigest()


def combined_hash(parts: Iterable[str]) -> str:
    """Return a hash of several hashes in their order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def to_fact(annotation: Annotation, *, read_at: float, max_bytes: int) -> Fact:
    """Return an annotation ready to be written.

    Raises:
        StoreError: its result is no JSON.
    """
    packed: bytes | None = compress(list(annotation.result))
    problem = None
    if packed is not None and len(packed) > max_bytes:
        problem = (
            f"Annotation {annotation.annotation_id} of task {annotation.task_id} takes "
            f"{len(packed) / 2**20:.1f} MB and is not learned from; split it into several tasks "
            f"so that each stays under {max_bytes / 2**20:.0f} MB."
        )
        packed = None
    hashed = replace(annotation, content_hash=content_hash(annotation))
    return Fact(annotation=hashed, result=packed, problem=problem, read_at=read_at)


def is_news(row: LedgerAnnotationRow, fact: Fact) -> bool:
    """Return whether a state replaces the one in the row.

    The newest `updated_at` wins; of equal ones that of the newest snapshot, else that of the
    larger hash. A snapshot that began after we last heard of the annotation always wins: it shows
    Label Studio as it is, also after a backup was put back.
    """
    annotation = fact.annotation
    if (annotation.updated_at, annotation.content_hash) == (row.updated_at, row.content_hash):
        return False
    if fact.read_at > row.heard_at:
        return True
    return fact.order > (row.updated_at, row.seen_at, row.content_hash)


def is_alive(row: LedgerAnnotationRow, task: LedgerTaskRow | None) -> bool:
    """Return whether an annotation counts as being there."""
    if row.task_id is None:
        return False
    times = [row.removed_at, task.removed_at if task is not None else None]
    return all(_outlives(row.updated_at, row.seen_at, removed_at) for removed_at in times)


def is_task_alive(row: LedgerTaskRow) -> bool:
    """Return whether a task counts as being there, with its data."""
    return row.data is not None and _outlives(row.updated_at, row.seen_at, row.removed_at)


def write_state(row: LedgerAnnotationRow, fact: Fact) -> None:
    """Give the row the state of a fact."""
    annotation = fact.annotation
    row.task_id = annotation.task_id
    row.updated_at = annotation.updated_at
    row.cancelled = annotation.cancelled
    row.ground_truth = annotation.ground_truth
    row.completed_by = annotation.completed_by
    row.parent_prediction = annotation.parent_prediction
    row.content_hash = annotation.content_hash
    row.problem = fact.problem


def write_task(
    row: LedgerTaskRow, task: LabelledTask, *, updated_at: float, read_at: float, now: float
) -> None:
    """Give the row a task's data where they are news.

    Tasks are told of without a time of their own, so it is that of the annotation they came with
    or of the snapshot; 0 where neither is known. The newest wins, of equal ones the larger hash.
    """
    content = to_json(dict(task.data))
    digest = hashlib.sha256(content).hexdigest()
    if (updated_at, digest) > (row.updated_at, row.data_hash) or read_at > row.heard_at:
        if digest != row.data_hash:
            packed = zlib.compress(content, 1)
            row.data = packed if len(packed) <= MAX_BYTES else None
            row.data_hash = digest
            row.heard_at = now
        row.updated_at = max(row.updated_at, updated_at)
    row.seen_at = max(row.seen_at, read_at)


def miss(row: LedgerAnnotationRow, taken_at: float) -> None:
    """Note that a snapshot did not have the annotation of a row, though it had been heard of.

    It leaves, and a state that is newer than the snapshot brings it back: unlike the word of a
    deletion this may be a mistake, when pages shifted under the one who read them.
    """
    left_at = max(taken_at, row.updated_at) - CLOCK_SLACK_S
    row.removed_at = later(row.removed_at, left_at)
    row.seen_at = min(row.seen_at, left_at)


def later(known: float | None, at: float) -> float:
    """Return the later of two times, of which one may be unknown."""
    return at if known is None else max(known, at)


def to_annotation(row: LedgerAnnotationRow, result: bytes | None) -> Annotation:
    """Return the annotation in a row that is alive."""
    return Annotation(
        task_id=row.task_id or 0,
        annotation_id=row.annotation_id,
        updated_at=row.updated_at,
        cancelled=row.cancelled,
        ground_truth=row.ground_truth,
        completed_by=row.completed_by,
        parent_prediction=row.parent_prediction,
        result=decompress(result, default=[]),
        content_hash=row.content_hash,
    )


def to_task(row: LedgerTaskRow) -> LabelledTask:
    """Return the task in a row that is alive."""
    return LabelledTask(task_id=row.task_id, data=decompress(row.data, default={}))


def in_chunks(ids: Sequence[int], size: int = 500) -> list[Sequence[int]]:
    """Return ids in parts that one statement can name."""
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def _outlives(updated_at: float, seen_at: float, removed_at: float | None) -> bool:
    if removed_at is None:
        return True
    return seen_at > removed_at or updated_at > removed_at + CLOCK_SLACK_S


def _stable(region: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in region.items() if key not in _VOLATILE}
