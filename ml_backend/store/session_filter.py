"""What sessions people look for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, or_
from sqlalchemy.orm import InstrumentedAttribute

from ml_backend.learning import SessionState, SessionStatus
from ml_backend.store.schema import SessionRow
from ml_backend.store.session_rows import is_expired


@dataclass(frozen=True, kw_only=True)
class SessionFilter:
    """What sessions must be; empty = any. Of several names in a field one must be the session's."""

    statuses: Collection[SessionStatus] = ()
    datasets: Collection[str] = ()  # names
    labels: Collection[str] = ()
    owner: str | None = None  # None = anybody

    def conditions(self, now: float) -> list[ColumnElement[bool]]:
        """Return the conditions on the rows; `now` in seconds since the epoch."""
        found = []
        if self.statuses:
            found.append(or_(*(_has_status(status, now) for status in self.statuses)))
        if self.datasets:
            found.append(_is_one_of(SessionRow.dataset, self.datasets))
        if self.labels:
            found.append(_is_one_of(SessionRow.label, self.labels))
        if self.owner is not None:
            found.append(_is_one_of(SessionRow.owner, [self.owner]))
        return found


def _has_status(status: SessionStatus, now: float) -> ColumnElement[bool]:
    if status is SessionStatus.UNKNOWN:
        return is_expired(now)
    has_state = SessionRow.state == SessionState(status.value)
    if status is SessionStatus.RUNNING:
        return and_(has_state, SessionRow.lease_until > now)
    return has_state


def _is_one_of(
    column: InstrumentedAttribute[str | None], names: Collection[str]
) -> ColumnElement[bool]:
    return column.in_([name for name in names if "\0" not in name])  # PostgreSQL takes none with it
