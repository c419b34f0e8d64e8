"""`sessions watch`: a training as it goes on, until its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

import typer

from ml_backend.cli.backend import open_backend
from ml_backend.cli.console import console
from ml_backend.cli.session_texts import point_text, progress_text
from ml_backend.client import EventKind, SessionEvent, SessionInfo
from ml_backend.learning import SessionState


def watch(
    session_id: Annotated[str, typer.Argument(help="Of the session, or the beginning of it.")],
) -> None:
    """Follow a training: a line for each epoch and for what it does. Ctrl-C only ends the watching.

    Ends with 0 when the training has completed, and with 1 when it has failed or was stopped.
    """
    with open_backend("sessions") as client:
        session = client.sessions.get(session_id)
        _say(f"session {session.id}")
        try:
            for line in lines_of(client.sessions.events(session.id)):
                _say(line)
        except KeyboardInterrupt:
            _say(f"it goes on; `ml-backend sessions stop {session.id}` stops it")
            raise typer.Exit(130) from None  # as shells say of Ctrl-C
        state = client.sessions.get(session.id).state
    raise typer.Exit(0 if state is SessionState.COMPLETED else 1)


def lines_of(events: Iterable[SessionEvent]) -> Iterator[str]:
    """Yield what happens in a session until it has ended, a line each."""
    doing, epochs = "", None
    for event in events:
        if event.point is not None:
            yield point_text(event.point, epochs)
            continue
        session = event.session
        if session is None:
            continue
        epochs = session.progress.get("epochs", epochs)
        if event.kind is EventKind.END:
            made = f"; it made the model {session.version}" if session.version else ""
            yield f"{session.state}: {session.message or 'it says no more'}{made}"
        elif (now := _doing(session)) != doing:
            doing = now
            yield now


def _doing(session: SessionInfo) -> str:
    """Return what a session does, without what changes all the time."""
    if session.state is not SessionState.RUNNING:
        return progress_text(session)
    return "stopping" if session.stop_requested else str(session.progress.get("phase") or "begins")


def _say(line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
