"""What /job_status says of an event: how far it and the training it led to have come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ml_backend.learning import Session, SessionState
from ml_backend.store.events import Event, EventState

_OF_EVENTS = {
    EventState.QUEUED: SessionState.QUEUED,
    EventState.WAITING: SessionState.QUEUED,
    EventState.DONE: SessionState.COMPLETED,
    EventState.FAILED: SessionState.FAILED,
}
_MOST_OPEN_FIRST = (
    SessionState.RUNNING,
    SessionState.QUEUED,
    SessionState.FAILED,
    SessionState.STOPPED,
    SessionState.COMPLETED,
)


def job_json(event: Event, sessions: Sequence[Session]) -> dict[str, Any]:
    """Return the answer for an event; a project with several networks has several sessions."""
    states = {session.state for session in sessions}
    state = next((one for one in _MOST_OPEN_FIRST if one in states), _OF_EVENTS[event.state])
    versions = [session.version for session in sessions if session.version is not None]
    reasons = [session.message for session in sessions if session.message]
    return {
        "job": event.job,
        "action": event.action,
        "state": state,
        "message": " ".join(reasons) or event.message,
        "version": versions[0] if versions else None,
        "received_at": event.received_at,
        "sessions": [
            {
                "id": session.id,
                "state": session.state,
                "controls": list(session.controls),
                "version": session.version,
                "message": session.message,
                "progress": dict(session.progress),
            }
            for session in sessions
        ],
    }
