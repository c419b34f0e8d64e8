"""The annotation ledger: the newest state of every annotation, whatever way it was heard of.

Facts come as events (in any order, some twice, some never) and as snapshots that were read from
Label Studio's API. What is kept follows one rule:

- Of an annotation the state with the newest `updated_at` counts; of equal ones that of the newest
  snapshot, else the one with the larger content hash.
- A deletion outlives every state that is less than an hour newer than it (`CLOCK_SLACK_S`).
- A snapshot that began after the last word of an annotation shows how things are: what is in it
  is there, whatever was said before; what is not in it has left, until a state comes that is
  newer than the snapshot.

Events alone end in the same state in any order, and so do events around a snapshot except for
those that say something of an annotation that the snapshot knows better.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import delete, select

from ml_backend.domain import ProjectKey
from ml_backend.learning import Annotation, LabelledTask
from ml_backend.store.database import Database
from ml_backend.store.ledger_reading import LedgerReading
from ml_backend.store.ledger_rows import (
    MAX_BYTES,
    Fact,
    in_chunks,
    later,
    miss,
    to_fact,
    write_task,
)
from ml_backend.store.ledger_writing import apply_fact, hold_annotations, hold_tasks, settle
from ml_backend.store.schema import LedgerAnnotationRow, LedgerTaskRow

TOMBSTONE_AGE_S = 180 * 86400.0
_CHUNK_ROWS = 100  # of a snapshot, in one transaction
_CHUNK_BYTES = 8 * 2**20


@dataclass(frozen=True, kw_only=True)
class Reconciled:
    """What a snapshot changed: how many annotations."""

    added: int  # or brought back
    changed: int
    removed: int

    def __bool__(self) -> bool:
        """Return whether anything changed."""
        return bool(self.added or self.changed or self.removed)


class AnnotationLedger(LedgerReading):
    """The tables of tasks and annotations that training learns from."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], float] = time.time,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Prepare the ledger; a compressed result over `max_bytes` is not kept."""
        super().__init__(database)
        self._clock = clock
        self._max_bytes = max_bytes

    def record(
        self, project: ProjectKey, annotation: Annotation, task: LabelledTask | None
    ) -> bool:
        """Work in what an event says of an annotation; return whether what counts changed.

        A result too large to be kept takes the annotation out: `problems` says so.

        Raises:
            StoreError: its result is no JSON, or the records cannot be written.
        """
        fact = to_fact(annotation, read_at=0.0, max_bytes=self._max_bytes)
        with self._database.write() as session:
            tasks = hold_tasks(session, project, [annotation.task_id], now=self._clock())
            rows = hold_annotations(session, project, [annotation.annotation_id], now=self._clock())
            if task is not None:
                write_task(
                    tasks[task.task_id],
                    task,
                    updated_at=annotation.updated_at,
                    read_at=0.0,
                    now=self._clock(),
                )
            return apply_fact(
                session,
                rows[annotation.annotation_id],
                tasks[annotation.task_id],
                fact,
                now=self._clock(),
            )

    def record_task(
        self, project: ProjectKey, task: LabelledTask, *, updated_at: float = 0.0
    ) -> None:
        """Work in what an event says of a task; without a time it counts as the oldest word.

        Raises:
            StoreError: its data are no JSON, or the records cannot be written.
        """
        with self._database.write() as session:
            row = hold_tasks(session, project, [task.task_id], now=self._clock())[task.task_id]
            write_task(row, task, updated_at=updated_at, read_at=0.0, now=self._clock())

    def remove(self, project: ProjectKey, annotation_ids: Iterable[int], *, at: float) -> int:
        """Work in the deletion of annotations, also of ones never heard of; return how many left.

        Args:
            project: Whose.
            annotation_ids: Of the deleted ones.
            at: When the word of it came, by our clock.

        Raises:
            StoreError
        """
        removed = 0
        for chunk in in_chunks(sorted(set(annotation_ids))):
            with self._database.write() as session:
                for row in hold_annotations(session, project, chunk, now=self._clock()).values():
                    row.removed_at = later(row.removed_at, at)
                    removed += settle(session, row, None, now=self._clock())
        return removed

    def remove_tasks(self, project: ProjectKey, task_ids: Iterable[int], *, at: float) -> int:
        """Work in the deletion of tasks and all in them; return how many annotations left.

        Args:
            project: Whose.
            task_ids: Of the deleted ones.
            at: When the word of it came, by our clock.

        Raises:
            StoreError
        """
        removed = 0
        for chunk in in_chunks(sorted(set(task_ids))):
            with self._database.write() as session:
                tasks = hold_tasks(session, project, chunk, now=self._clock())
                for task in tasks.values():
                    task.removed_at = later(task.removed_at, at)
                    task.heard_at = self._clock()
                query = select(LedgerAnnotationRow.annotation_id).where(
                    LedgerAnnotationRow.project == str(project),
                    LedgerAnnotationRow.task_id.in_(chunk),
                )
                ids = sorted(session.scalars(query))
                for part in in_chunks(ids):
                    for row in hold_annotations(session, project, part, now=self._clock()).values():
                        task_row = None if row.task_id is None else tasks.get(row.task_id)
                        removed += settle(session, row, task_row, now=self._clock())
        return removed

    def reconcile(
        self,
        project: ProjectKey,
        annotations: Iterable[Annotation],
        tasks: Iterable[LabelledTask],
        *,
        taken_at: float,
        only_tasks: Collection[int] | None = None,
    ) -> Reconciled:
        """Work in a snapshot; what is not in it and was heard of before it leaves.

        Both are read to their ends, tasks first, and written in parts; an exception on the way
        leaves what was written so far, and removes nothing.

        Args:
            project: Whose.
            annotations: All there are, cancelled ones as well.
            tasks: Those that have annotations, or all.
            taken_at: When the reading of it began, by our clock.
            only_tasks: The snapshot is of these tasks alone; None: of the whole project.

        Raises:
            StoreError
        """
        kept_tasks = self._reconcile_tasks(project, tasks, taken_at)
        seen: set[int] = set()
        counts = {"added": 0, "changed": 0}
        chunk: list[Fact] = []
        for annotation in annotations:
            chunk.append(to_fact(annotation, read_at=taken_at, max_bytes=self._max_bytes))
            seen.add(annotation.annotation_id)
            size = sum(len(fact.result or b"") for fact in chunk)
            if len(chunk) >= _CHUNK_ROWS or size >= _CHUNK_BYTES:
                self._reconcile_annotations(project, chunk, counts)
                chunk = []
        self._reconcile_annotations(project, chunk, counts)
        scopes = [None] if only_tasks is None else in_chunks(sorted(set(only_tasks)))
        removed = sum(self._leave(project, seen, taken_at, scope) for scope in scopes)
        if only_tasks is None:
            self._forget_idle_tasks(project, kept_tasks, taken_at)
        return Reconciled(added=counts["added"], changed=counts["changed"], removed=removed)

    def prune(self, *, older_than_s: float = TOMBSTONE_AGE_S) -> int:
        """Drop the traces of what was deleted longer ago than that; returns how many.

        Raises:
            StoreError
        """
        before = self._clock() - older_than_s
        with self._database.write() as session:
            annotations = session.execute(
                delete(LedgerAnnotationRow)
                .where(~LedgerAnnotationRow.alive, LedgerAnnotationRow.heard_at < before)
                .returning(LedgerAnnotationRow.annotation_id)
            ).all()
            still_needed = select(LedgerAnnotationRow.task_id).where(
                LedgerAnnotationRow.project == LedgerTaskRow.project,
                LedgerAnnotationRow.task_id == LedgerTaskRow.task_id,
                LedgerAnnotationRow.alive,
            )
            tasks = session.execute(
                delete(LedgerTaskRow)
                .where(
                    LedgerTaskRow.removed_at.is_not(None),
                    LedgerTaskRow.heard_at < before,
                    ~still_needed.exists(),
                )
                .returning(LedgerTaskRow.task_id)
            ).all()
        return len(annotations) + len(tasks)

    def _reconcile_tasks(
        self, project: ProjectKey, tasks: Iterable[LabelledTask], taken_at: float
    ) -> set[int]:
        kept: set[int] = set()
        known = {task.task_id: task for task in tasks}
        for chunk in in_chunks(sorted(known)):
            kept.update(chunk)
            with self._database.write() as session:
                for task_id, row in hold_tasks(session, project, chunk, now=self._clock()).items():
                    write_task(
                        row,
                        known[task_id],
                        updated_at=taken_at,
                        read_at=taken_at,
                        now=self._clock(),
                    )
        return kept

    def _reconcile_annotations(
        self, project: ProjectKey, facts: list[Fact], counts: dict[str, int]
    ) -> None:
        if not facts:
            return
        with self._database.write() as session:
            task_ids = sorted({fact.annotation.task_id for fact in facts})
            tasks = hold_tasks(session, project, task_ids, now=self._clock())
            ids = sorted({fact.annotation.annotation_id for fact in facts})
            rows = hold_annotations(session, project, ids, now=self._clock())
            for fact in facts:
                row = rows[fact.annotation.annotation_id]
                was_alive = row.alive
                if apply_fact(
                    session, row, tasks[fact.annotation.task_id], fact, now=self._clock()
                ):
                    counts["changed" if was_alive else "added"] += row.alive

    def _leave(
        self,
        project: ProjectKey,
        seen: set[int],
        taken_at: float,
        task_ids: Collection[int] | None,
    ) -> int:
        """Take out what a snapshot did not have and was heard of before it; return how many."""
        query = select(LedgerAnnotationRow.annotation_id).where(
            LedgerAnnotationRow.project == str(project),
            LedgerAnnotationRow.alive,
            LedgerAnnotationRow.heard_at <= taken_at,
        )
        if task_ids is not None:
            query = query.where(LedgerAnnotationRow.task_id.in_(task_ids))
        with self._database.read() as session:
            missing = sorted(set(session.scalars(query)) - seen)
        removed = 0
        for chunk in in_chunks(missing):
            with self._database.write() as session:
                for row in hold_annotations(session, project, chunk, now=self._clock()).values():
                    if row.heard_at > taken_at:
                        continue  # heard of again since the look above
                    miss(row, taken_at)
                    removed += settle(session, row, None, now=self._clock())
        return removed

    def _forget_idle_tasks(
        self, project: ProjectKey, kept_tasks: set[int], taken_at: float
    ) -> None:
        """Drop tasks that nothing is known of but that they were once imported."""
        of_project = LedgerAnnotationRow.project == str(project)
        annotated = select(LedgerAnnotationRow.task_id).where(of_project, LedgerAnnotationRow.alive)
        idle = select(LedgerTaskRow.task_id).where(
            LedgerTaskRow.project == str(project),
            LedgerTaskRow.heard_at <= taken_at,
            LedgerTaskRow.removed_at.is_(None),
            LedgerTaskRow.task_id.not_in(annotated),
        )
        with self._database.write() as session:
            for chunk in in_chunks(sorted(set(session.scalars(idle)) - kept_tasks)):
                session.execute(
                    delete(LedgerTaskRow).where(
                        LedgerTaskRow.project == str(project), LedgerTaskRow.task_id.in_(chunk)
                    )
                )
