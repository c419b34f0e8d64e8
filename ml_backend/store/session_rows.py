"""Rows of training sessions: their reading, and the conditions that claims go by."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import aliased

from ml_backend.domain import ProjectKey
from ml_backend.learning import (
    EpochPoint,
    Lease,
    Multiple,
    Session,
    SessionState,
    TrainingParameters,
    Trigger,
)
from ml_backend.store.packing import decompress, from_json, to_json
from ml_backend.store.projects import parse_key
from ml_backend.store.schema import SessionPointRow, SessionRow

_PARAMETERS = frozenset(field.name for field in fields(TrainingParameters))


def target_of(controls: Iterable[str]) -> str:
    """Return the text that is equal exactly for the same controls."""
    return to_json(sorted(set(controls))).decode()


def is_of_target(project: ProjectKey, target: str) -> ColumnElement[bool]:
    """Return the condition that a session is of that project and those controls."""
    return and_(SessionRow.project == str(project), SessionRow.target == target)


def is_held(lease: Lease) -> ColumnElement[bool]:
    """Return the condition that a session is still the lease's."""
    return and_(
        SessionRow.id == lease.session_id,
        SessionRow.lease == lease.number,
        SessionRow.state == SessionState.RUNNING,
    )


def is_expired(now: float) -> ColumnElement[bool]:
    """Return the condition that a session runs and its lease has run out."""
    return and_(SessionRow.state == SessionState.RUNNING, SessionRow.lease_until <= now)


def has_run_out(row: SessionRow, now: float) -> bool:
    """Return whether a session runs and its lease has run out."""
    return row.state == SessionState.RUNNING and row.lease_until <= now


def is_claimable(now: float) -> ColumnElement[bool]:
    """Return the condition that a session may be claimed."""
    other = aliased(SessionRow)
    has_running = (
        select(other.id)
        .where(
            other.project == SessionRow.project,
            other.target == SessionRow.target,
            other.state == SessionState.RUNNING,
            other.dataset.is_(None),  # each session about a dataset stands for itself
        )
        .exists()
    )
    return or_(is_expired(now), and_(SessionRow.state == SessionState.QUEUED, ~has_running))


def to_session(row: SessionRow, *, with_manifest: bool = True) -> Session:
    """Return the session in a row; its manifest, which may be long, only where asked for."""
    return Session(
        id=row.id,
        project=parse_key(row.project),
        state=SessionState(row.state),
        trigger=Trigger(row.trigger),
        controls=tuple(from_json(row.target.encode())),
        owner=row.owner,
        parameters=_to_parameters(from_json(row.parameters)),
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        heartbeat_at=row.heartbeat_at,
        lease=row.lease,
        stop_requested=row.stop_requested,
        attempts=row.attempts,
        message=row.message,
        version=row.version,
        progress=from_json(row.progress),
        report=decompress(row.report, default={}),
        manifest=decompress(row.manifest, default={}) if with_manifest else {},
        dataset=row.dataset,
        label=row.label,
        base=row.base,
        restarted_from=row.restarted_from,
        lease_owner=row.lease_owner,
        lease_until=row.lease_until,
    )


def point_to_json(point: EpochPoint) -> bytes:
    """Return a point of a curve as JSON; what is no number becomes null."""
    return to_json(asdict(point))


def to_point(row: SessionPointRow) -> EpochPoint:
    """Return the point in a row."""
    stored: dict[str, Any] = from_json(row.point)
    precision, pixels = stored["precision"], stored.get("pixels")
    return EpochPoint(
        epoch=stored["epoch"],
        step=stored["step"],
        loss=_number(stored["loss"]),
        learning_rate=_number(stored["learning_rate"]),
        validation_loss=stored["validation_loss"],
        precision=None if precision is None else (precision[0], precision[1], precision[2]),
        pixels=None if pixels is None else (pixels[0], pixels[1], pixels[2], pixels[3]),
        seconds=stored["seconds"],
    )


def _number(stored: float | None) -> float:
    return math.nan if stored is None else stored  # a loss that diverged; JSON has no NaN


def _to_parameters(stored: dict[str, Any]) -> TrainingParameters:
    known = {name: value for name, value in stored.items() if name in _PARAMETERS}
    if "multiple" in known:
        known["multiple"] = Multiple(known["multiple"])
    return TrainingParameters(**known)
