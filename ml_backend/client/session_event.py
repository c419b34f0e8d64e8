"""What happens in a training, as it happens."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ml_backend.client.point import Point
from ml_backend.client.session_info import SessionInfo


class EventKind(StrEnum):
    """What an event tells of."""

    SESSION = "session"  # its state or progress changed
    POINT = "point"  # an epoch is over
    END = "end"  # nobody works on it any more; the last event


@dataclass(frozen=True, kw_only=True)
class SessionEvent:
    """Something that happened in a training."""

    kind: EventKind
    id: str | None  # where to go on after it
    session: SessionInfo | None = None  # of SESSION and END
    point: Point | None = None  # of POINT
