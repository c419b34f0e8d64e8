"""Why a session is in the state it is in, and what to do about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ml_backend.learning import Session, SessionState, SessionStatus
from ml_backend.store.sessions import Sessions
from ml_backend.store.trainers import GONE_AFTER_S, Trainers

TAKEN_UP_WITHIN_S: Final = 180.0
"""A trainer that is free takes a session up within this time, Label Studio's reading included."""

_START_A_TRAINER: Final = (
    "Start a trainer with `ml-backend serve` or `ml-backend trainer`; if one is running, look into "
    "its log."
)


@dataclass(frozen=True, kw_only=True)
class LeaseFacts:
    """Who may write to a session."""

    number: int  # grows with each claim
    owner: str | None  # the trainer that claimed it last
    until: float | None  # seconds since the epoch; None: nobody holds it
    seconds_left: float | None  # negative: it ran out so long ago


@dataclass(frozen=True, kw_only=True)
class SessionDebug:
    """What is known of a session's state."""

    session: Session
    status: SessionStatus
    reason: str  # a sentence
    next_step: str  # a sentence
    queue_position: int | None  # 1 = no other waits longer; None: it does not wait
    lease: LeaseFacts
    heartbeat_age_s: float | None  # of a running one
    trainers: tuple[str, ...]  # that are there, busy or not


@dataclass(frozen=True, kw_only=True)
class _Finding:
    reason: str
    next_step: str


class SessionDebugger:
    """Looks into the records."""

    def __init__(
        self, sessions: Sessions, trainers: Trainers, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._sessions = sessions
        self._trainers = trainers
        self._clock = clock

    def examine(self, session: Session) -> SessionDebug:
        """Return why a session is in its state.

        Raises:
            StoreError
        """
        now = self._clock()
        status = session.status_at(now)
        present = tuple(self._trainers.present())
        position = None
        if status is SessionStatus.QUEUED:
            position = self._sessions.queued_before(session) + 1
            finding = self._of_queued(session, position, present, now)
        elif status is SessionStatus.RUNNING:
            finding = _of_running(session, now)
        elif status is SessionStatus.UNKNOWN:
            finding = _of_lost(session, present, now)
        else:
            finding = _of_ended(session)
        is_running = session.state is SessionState.RUNNING
        beaten = session.heartbeat_at if is_running else None
        return SessionDebug(
            session=session,
            status=status,
            reason=finding.reason,
            next_step=finding.next_step,
            queue_position=position,
            lease=LeaseFacts(
                number=session.lease,
                owner=session.lease_owner,
                until=session.lease_until if is_running else None,
                seconds_left=session.lease_until - now if is_running else None,
            ),
            heartbeat_age_s=None if beaten is None else max(0.0, now - beaten),
            trainers=present,
        )

    def _of_queued(
        self, session: Session, position: int, present: Sequence[str], now: float
    ) -> _Finding:
        running = self._sessions.find(state=SessionState.RUNNING, with_manifests=False)
        blocker = next((one for one in running if _is_in_the_way(one, session)), None)
        waited = f"It has waited for {_seconds(now - session.created_at)}"
        if blocker is not None:
            return _Finding(
                reason=f"It waits for session {blocker.id}, which trains the same controls: of "
                "those, one is trained at a time.",
                next_step=f"Wait, or stop session {blocker.id}.",
            )
        if not present:
            return _Finding(
                reason=f"{waited}, and no trainer was there for the last {GONE_AFTER_S:g} s.",
                next_step=_START_A_TRAINER,
            )
        held = [  # by trainers: `ml-backend train` works on sessions of its own
            one
            for one in running
            if one.status_at(now) is SessionStatus.RUNNING and one.lease_owner in present
        ]
        if len(held) >= len(present):
            busy = ", ".join(one.id for one in held[:3]) + (", ..." if len(held) > 3 else "")
            return _Finding(
                reason=f"{waited}: {_trainers(len(present))} there, busy with {busy}, and "
                f"{_sessions(position - 1)} asked for earlier.",
                next_step="Wait, stop one of those, or start another trainer.",
            )
        if now - session.created_at > TAKEN_UP_WITHIN_S and position == 1:
            return _Finding(
                reason=f"{waited}, although a trainer is there and free.",
                next_step="Look into the trainer's log: it says what keeps it from starting.",
            )
        return _Finding(
            reason=f"{waited}; a trainer is free and takes it up as soon as it has read what there "
            "is to learn from.",
            next_step="Wait a moment.",
        )


def _is_in_the_way(running: Session, session: Session) -> bool:
    """Return whether a session must not run beside another; those on datasets always may."""
    return (
        session.dataset is None
        and running.dataset is None
        and running.project == session.project
        and set(running.controls) == set(session.controls)
    )


def _of_running(session: Session, now: float) -> _Finding:
    if session.stop_requested:
        return _Finding(
            reason=f"It was asked to stop; {_trainer(session)} does so after the batch in hand.",
            next_step="Wait a moment.",
        )
    age = "" if session.heartbeat_at is None else _seconds(now - session.heartbeat_at)
    phase = session.progress.get("phase")
    where = f" in the phase {phase}" if isinstance(phase, str) else ""
    tries = session.progress.get("tries")
    if isinstance(tries, int) and tries > 1:
        return _Finding(
            reason=f"{_upper(_trainer(session))} works on it{where}, after its process ended "
            f"{tries - 1} times without getting further.",
            next_step="Look into the trainer's log: it says how the process ended.",
        )
    return _Finding(
        reason=f"{_upper(_trainer(session))} works on it{where}; its last sign of life is "
        f"{age or 'not known'}" + (" old." if age else "."),
        next_step="Wait, or stop it; what it has learned by then stays.",
    )


def _of_lost(session: Session, present: Sequence[str], now: float) -> _Finding:
    since = now - (session.heartbeat_at or session.lease_until)
    return _Finding(
        reason=f"{_upper(_trainer(session))} was not heard of for {_seconds(since)}, so it is "
        "taken to be gone: it was killed, its machine is off, or it cannot reach the records.",
        next_step=(
            "Wait: a trainer that is there goes on from the last checkpoint as soon as it is free."
            if present
            else f"{_START_A_TRAINER} It goes on from the last checkpoint."
        ),
    )


def _of_ended(session: Session) -> _Finding:
    said = session.message or f"It is {session.state}; it says no more."
    if session.state is SessionState.COMPLETED:
        step = (
            f"Its model {session.version} can be named wherever a model is named."
            if session.version
            else "Nothing; it made no model."
        )
    elif session.state is SessionState.FAILED:
        step = (
            "Mend what the reason says, then resume it: it goes on from its last checkpoint, if it "
            "came so far."
        )
    else:
        step = "Resume it to go on from its last checkpoint, or restart it with more epochs."
    return _Finding(reason=said, next_step=step)


def _trainer(session: Session) -> str:
    return f"trainer {session.lease_owner}" if session.lease_owner else "a trainer"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _seconds(seconds: float) -> str:
    return f"{max(0, round(seconds))} s"


def _trainers(number: int) -> str:
    return "1 trainer is" if number == 1 else f"{number} trainers are"


def _sessions(number: int) -> str:
    return "1 session that waits was" if number == 1 else f"{number} sessions that wait were"
