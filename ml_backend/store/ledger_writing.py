"""How a fact gets into the ledger's rows, inside a transaction that holds them."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from ml_backend.domain import ProjectKey
from ml_backend.store.ledger_rows import Fact, is_alive, is_news, write_state
from ml_backend.store.schema import LedgerAnnotationRow, LedgerResultRow, LedgerTaskRow
from ml_backend.store.upsert import insert_if_new, insert_or_replace


def hold_tasks(
    session: Session, project: ProjectKey, task_ids: Collection[int], *, now: float
) -> dict[int, LedgerTaskRow]:
    """Return the rows of tasks, made where missing, held until the transaction ends.

    Always tasks before annotations, new rows before known ones and each by id, so that no two
    transactions wait for each other.
    """
    query = (
        select(LedgerTaskRow)
        .where(LedgerTaskRow.project == str(project), LedgerTaskRow.task_id.in_(task_ids))
        .order_by(LedgerTaskRow.task_id)
    )
    known = set(session.scalars(query.with_only_columns(LedgerTaskRow.task_id)))
    for task_id in sorted(set(task_ids) - known):
        values = {
            "project": str(project),
            "task_id": task_id,
            "updated_at": 0.0,
            "seen_at": 0.0,
            "heard_at": now,
            "data_hash": "",
        }
        insert_if_new(session, LedgerTaskRow, values)
    return {row.task_id: row for row in session.scalars(query.with_for_update())}


def hold_annotations(
    session: Session, project: ProjectKey, annotation_ids: Collection[int], *, now: float
) -> dict[int, LedgerAnnotationRow]:
    """Return the rows of annotations, made where missing, held until the transaction ends."""
    query = (
        select(LedgerAnnotationRow)
        .where(
            LedgerAnnotationRow.project == str(project),
            LedgerAnnotationRow.annotation_id.in_(annotation_ids),
        )
        .order_by(LedgerAnnotationRow.annotation_id)
    )
    known = set(session.scalars(query.with_only_columns(LedgerAnnotationRow.annotation_id)))
    for annotation_id in sorted(set(annotation_ids) - known):
        values = {
            "project": str(project),
            "annotation_id": annotation_id,
            "alive": False,
            "updated_at": 0.0,
            "seen_at": 0.0,
            "heard_at": now,
            "cancelled": False,
            "ground_truth": False,
            "content_hash": "",
        }
        insert_if_new(session, LedgerAnnotationRow, values)
    return {row.annotation_id: row for row in session.scalars(query.with_for_update())}


def apply_fact(
    session: Session, row: LedgerAnnotationRow, task: LedgerTaskRow, fact: Fact, *, now: float
) -> bool:
    """Work a state of an annotation into its row; return whether what counts changed."""
    was_alive = row.alive
    news = is_news(row, fact)
    if news:
        write_state(row, fact)
        row.heard_at = now
    row.seen_at = max(row.seen_at, fact.read_at)
    row.alive = is_alive(row, task)
    if row.alive and not was_alive and not news:
        write_state(row, fact)  # the result that was known was dropped when it left
        row.heard_at = now
    if row.alive and (news or not was_alive):
        _keep_result(session, row, fact.result)
    elif was_alive and not row.alive:
        _keep_result(session, row, None)
    return row.alive != was_alive or (row.alive and news)


def settle(
    session: Session, row: LedgerAnnotationRow, task: LedgerTaskRow | None, *, now: float
) -> bool:
    """Follow a word of deletion in the row; return whether the annotation leaves by it."""
    leaves = row.alive and not is_alive(row, task)
    if leaves:
        row.alive = False
        row.heard_at = now
        _keep_result(session, row, None)
    return leaves


def _keep_result(session: Session, row: LedgerAnnotationRow, result: bytes | None) -> None:
    if result is None:
        session.execute(
            delete(LedgerResultRow).where(
                LedgerResultRow.project == row.project,
                LedgerResultRow.annotation_id == row.annotation_id,
            )
        )
        return
    insert_or_replace(
        session,
        LedgerResultRow,
        {"project": row.project, "annotation_id": row.annotation_id, "result": result},
    )
