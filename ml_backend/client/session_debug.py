"""Why a session is in the state it is in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ml_backend.learning import SessionState


@dataclass(frozen=True, kw_only=True)
class LeaseInfo:
    """The right of a trainer to work on a session, as it was last given."""

    number: int = 0  # 0 = it was never given
    owner: str | None = None  # the trainer
    until: datetime | None = None
    seconds_left: float | None = None


@dataclass(frozen=True, kw_only=True)
class SessionDebug:
    """Why a session is in the state it is in, and what to do about it."""

    id: str
    state: SessionState
    reason: str  # a sentence
    next_step: str  # a sentence
    status: str = ""  # its state; "unknown" where it runs and its trainer is not heard of
    queue_position: int | None = None  # 1 = the next that a trainer takes up
    lease: LeaseInfo = LeaseInfo()
    heartbeat_age_s: float | None = None
    attempts: int = 0  # how often a trainer took it up
    trainer: str | None = None
    trainers: tuple[str, ...] = ()  # that are there
