"""What can be asked of the annotation ledger."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby

import structlog
from sqlalchemy import ColumnElement, and_, func, select

from ml_backend.domain import ProjectKey
from ml_backend.errors import StoreError
from ml_backend.learning import Annotation, LabelledTask
from ml_backend.store.database import Database
from ml_backend.store.ledger_rows import (
    combined_hash,
    in_chunks,
    is_task_alive,
    to_annotation,
    to_task,
)
from ml_backend.store.projects import parse_key
from ml_backend.store.schema import LedgerAnnotationRow, LedgerResultRow, LedgerTaskRow

log = structlog.get_logger(__name__)

Stamp = tuple[object, ...]
"""Something to compare; equal while a project's ledger is unchanged."""


class LedgerReading:
    """The reading half of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def counted(
        self, project: ProjectKey, *, task_ids: Collection[int] | None = None
    ) -> list[Annotation]:
        """Return the annotations that training learns from, with results, by task and id.

        Those are the ones that were neither deleted nor skipped; empty ones are among them.
        All results of a large project take much memory: name some tasks at a time.

        Raises:
            StoreError
        """
        if task_ids is None:
            return self._counted(_is_counted(project))
        found: list[Annotation] = []
        for chunk in in_chunks(sorted(set(task_ids))):
            in_chunk = LedgerAnnotationRow.task_id.in_(chunk)
            found += self._counted(and_(_is_counted(project), in_chunk))
        return found

    def task_hashes(self, project: ProjectKey) -> dict[int, str]:
        """Return a hash of each counted task: of its data and its counted annotations.

        Equal exactly while there is nothing new to learn from the task.

        Raises:
            StoreError
        """
        query = (
            select(
                LedgerAnnotationRow.task_id,
                LedgerAnnotationRow.content_hash,
                LedgerTaskRow.data_hash,
            )
            .outerjoin(
                LedgerTaskRow,
                and_(
                    LedgerTaskRow.project == LedgerAnnotationRow.project,
                    LedgerTaskRow.task_id == LedgerAnnotationRow.task_id,
                ),
            )
            .where(_is_counted(project))
            .order_by(LedgerAnnotationRow.task_id, LedgerAnnotationRow.annotation_id)
        )
        with self._database.read() as session:
            rows: Sequence[tuple[int, str, str | None]] = [
                (task_id or 0, content, data) for task_id, content, data in session.execute(query)
            ]
        hashes: dict[int, str] = {}
        for task_id, group in groupby(rows, key=lambda row: row[0]):
            members = list(group)
            hashes[task_id] = combined_hash([members[0][2] or "", *(row[1] for row in members)])
        return hashes

    def newest_tasks(self, project: ProjectKey, *, most: int) -> list[int]:
        """Return the counted tasks whose annotations were changed last, those first.

        Raises:
            StoreError
        """
        query = (
            select(LedgerAnnotationRow.task_id)
            .where(_is_counted(project), LedgerAnnotationRow.task_id.is_not(None))
            .group_by(LedgerAnnotationRow.task_id)
            .order_by(
                func.max(LedgerAnnotationRow.updated_at).desc(), LedgerAnnotationRow.task_id.desc()
            )
            .limit(most)
        )
        with self._database.read() as session:
            return [task_id for task_id in session.scalars(query) if task_id is not None]

    def count(self, project: ProjectKey) -> int:
        """Return how many annotations are there, skipped ones not counted.

        Raises:
            StoreError
        """
        query = select(func.count()).where(
            LedgerAnnotationRow.project == str(project),
            LedgerAnnotationRow.alive,
            ~LedgerAnnotationRow.cancelled,
        )
        with self._database.read() as session:
            return session.scalar(query) or 0

    def task(self, project: ProjectKey, task_id: int) -> LabelledTask | None:
        """Return a task, None if it is unknown or deleted.

        Raises:
            StoreError
        """
        with self._database.read() as session:
            row = session.get(LedgerTaskRow, (str(project), task_id))
            return to_task(row) if row is not None and is_task_alive(row) else None

    def tasks(self, project: ProjectKey) -> list[LabelledTask]:
        """Return the tasks with a counted annotation, by id.

        Raises:
            StoreError
        """
        annotated = select(LedgerAnnotationRow.task_id).where(_is_counted(project))
        query = (
            select(LedgerTaskRow)
            .where(LedgerTaskRow.project == str(project), LedgerTaskRow.task_id.in_(annotated))
            .order_by(LedgerTaskRow.task_id)
        )
        with self._database.read() as session:
            return [to_task(row) for row in session.scalars(query) if is_task_alive(row)]

    def problems(self, project: ProjectKey) -> dict[int, str]:
        """Return a sentence for each annotation that is too large to be learned from.

        Raises:
            StoreError
        """
        query = (
            select(LedgerAnnotationRow.annotation_id, LedgerAnnotationRow.problem)
            .where(
                LedgerAnnotationRow.project == str(project),
                LedgerAnnotationRow.alive,
                LedgerAnnotationRow.problem.is_not(None),
            )
            .order_by(LedgerAnnotationRow.annotation_id)
        )
        with self._database.read() as session:
            return {
                annotation_id: problem or "" for annotation_id, problem in session.execute(query)
            }

    def last_change(self, project: ProjectKey) -> float | None:
        """Return when, by our clock, an annotation last came, changed or left; None: never.

        Raises:
            StoreError
        """
        query = select(func.max(LedgerAnnotationRow.heard_at)).where(
            LedgerAnnotationRow.project == str(project), LedgerAnnotationRow.task_id.is_not(None)
        )
        with self._database.read() as session:
            return session.scalar(query)

    def stamp(self, project: ProjectKey) -> Stamp:
        """Return what is equal as long as `task_hashes` are; far quicker than reading them.

        Raises:
            StoreError
        """
        stamp: list[object] = []
        with self._database.read() as session:
            for table in (LedgerAnnotationRow, LedgerTaskRow):
                # the sum as well: our clock may be put back
                facts = func.count(), func.max(table.heard_at), func.sum(table.heard_at)
                query = select(*facts).where(table.project == str(project))
                stamp += session.execute(query).one()
        return tuple(stamp)

    def projects(self) -> list[ProjectKey]:
        """Return the projects of which an annotation is there; a key nobody can read is skipped.

        Raises:
            StoreError
        """
        query = (
            select(LedgerAnnotationRow.project)
            .where(LedgerAnnotationRow.alive)
            .group_by(LedgerAnnotationRow.project)
            .order_by(LedgerAnnotationRow.project)
        )
        with self._database.read() as session:
            found = [_try_to_parse(text) for text in session.scalars(query)]
        return [key for key in found if key is not None]

    def _counted(self, where: ColumnElement[bool]) -> list[Annotation]:
        query = (
            select(LedgerAnnotationRow, LedgerResultRow.result)
            .outerjoin(
                LedgerResultRow,
                and_(
                    LedgerResultRow.project == LedgerAnnotationRow.project,
                    LedgerResultRow.annotation_id == LedgerAnnotationRow.annotation_id,
                ),
            )
            .where(where)
            .order_by(LedgerAnnotationRow.task_id, LedgerAnnotationRow.annotation_id)
        )
        with self._database.read() as session:
            return [to_annotation(row, result) for row, result in session.execute(query)]


def _try_to_parse(text: str) -> ProjectKey | None:
    try:
        return parse_key(text)
    except StoreError as error:  # one bad row must not hide all the others
        log.warning("project left out of the ledger", reason=error.message)
        return None


def _is_counted(project: ProjectKey) -> ColumnElement[bool]:
    return and_(
        LedgerAnnotationRow.project == str(project),
        LedgerAnnotationRow.alive,
        ~LedgerAnnotationRow.cancelled,
        LedgerAnnotationRow.problem.is_(None),
    )
