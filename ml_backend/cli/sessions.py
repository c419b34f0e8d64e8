"""`sessions`: trainings, how far they are, and what came of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ml_backend.cli.console import add_row, begin, complaints, console, fail, sentences, show_table
from ml_backend.cli.session_texts import (
    duration_text,
    moment_text,
    progress_bar,
    progress_text,
    report_lines,
    text_of,
    took_text,
)
from ml_backend.learning import EpochPoint, Session, SessionState, TrainingParameters
from ml_backend.service.sessions import DEFAULT_LIMIT, MAX_LIMIT, TrainingDesk

sessions = typer.Typer(help="Show and steer trainings.", no_args_is_help=True)

_SHOWN_OF_ID = 12  # characters in a terminal; the beginning is enough for every command

SessionId = Annotated[str, typer.Argument(help="Of the session, or the beginning of it.")]
STYLES = {
    SessionState.QUEUED: "cyan",
    SessionState.RUNNING: "bold cyan",
    SessionState.COMPLETED: "green",
    SessionState.FAILED: "red",
    SessionState.STOPPED: "yellow",
}


@sessions.callback()
def about() -> None:
    """Show and steer trainings. They run in the trainer; this only looks at them and asks."""


@sessions.command("list")
def list_sessions(
    project: Annotated[str | None, typer.Option(help="Number of a project.")] = None,
    state: Annotated[SessionState | None, typer.Option(help="Only these.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MAX_LIMIT, help="At most.")] = DEFAULT_LIMIT,
) -> None:
    """List trainings, newest first."""
    with sentences():
        found = _desk().find(project=project, state=state, limit=limit)
    if not found:
        complaints.print("No training was asked for yet.", style="dim")
        return
    now = time.time()
    table = Table("session", "project", "state", "started by", "began", "took", "what came of it")
    for session in found:
        add_row(
            table,
            session.id[:_SHOWN_OF_ID] if console.is_terminal else session.id,
            str(session.project.project_id),
            Text(session.state, style=STYLES[session.state]),
            _who(session),
            moment_text(session.started_at or session.created_at),
            took_text(session, now),
            session.message or progress_text(session),
        )
    show_table(table)


@sessions.command()
def start(
    project: Annotated[str, typer.Argument(help="Number of the project.")],
) -> None:
    """Train a project now, whatever its policy says."""
    with sentences():
        begun = _desk().start(project)
    for session in begun:
        _say(
            f"session {session.id} ({', '.join(session.controls)}): {progress_text(session)}; "
            f"`ml-backend sessions show {session.id}` follows it"
        )


@sessions.command()
def show(session_id: SessionId) -> None:
    """Show how far a training is, what it was made of and what the gate says of it."""
    with sentences():
        session = _desk().get(session_id)
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for subject, text in _described(session):
        table.add_row(
            subject, Text(text, style=STYLES[session.state] if subject == "state" else "")
        )
    show_table(table)


@sessions.command()
def stop(session_id: SessionId) -> None:
    """Stop a training; its checkpoint stays, and `resume` goes on from there."""
    with sentences():
        session = _desk().stop(session_id)
    if session.state is SessionState.RUNNING:
        _say(f"session {session.id} stops after the batch in hand")
    else:
        _say(f"session {session.id} is {session.state}")


@sessions.command()
def resume(session_id: SessionId) -> None:
    """Go on with a training that was stopped or has failed, from its last checkpoint."""
    with sentences():
        session = _desk().resume(session_id)
    _say(f"session {session.id}: {progress_text(session)}")


@sessions.command()
def curves(
    session_id: SessionId,
    output: Annotated[
        Path | None, typer.Option(help="File for them instead: a .png picture, or .json.")
    ] = None,
) -> None:
    """Show loss, precision on the hold-out and learning rate, a line for each epoch."""
    with sentences():
        if output is not None and output.suffix.lower() not in (".png", ".json"):
            fail(f"--output {str(output)!r} must end in .png or .json.")
        desk = _desk()
        session = desk.get(session_id)
        points = desk.curve(session.id)
        if output is not None:
            _write_curves(output, session, points)
            return
    table = Table("epoch", "step", "loss", "hold-out loss", "AP@0.5", "AP@0.75", "AP@0.9")
    table.add_column("learning rate")
    table.add_column("after")
    for point in points:
        precision = point.precision or (None, None, None)
        numbers = (point.loss, point.validation_loss, *precision, point.learning_rate)
        table.add_row(
            str(point.epoch),
            str(point.step),
            *("" if number is None else f"{number:.4g}" for number in numbers),
            duration_text(point.seconds),
        )
    show_table(table)


def _write_curves(path: Path, session: Session, points: Sequence[EpochPoint]) -> None:
    import orjson

    from ml_backend.service.curves import curves_json, curves_picture, curves_title

    content = (
        curves_picture(points, title=curves_title(session))
        if path.suffix.lower() == ".png"
        else orjson.dumps(curves_json(points), option=orjson.OPT_INDENT_2)
    )
    try:
        path.write_bytes(content)
    except OSError as error:
        fail(f"{path} cannot be written ({error.strerror}); give --output another path.")
    _say(f"{path} shows {len(points)} epochs")


def _described(session: Session) -> Iterator[tuple[str, str]]:
    """Yield what a person may want to know of a session, as (subject, text)."""
    yield "session", session.id
    yield "project", str(session.project)
    yield "trains", ", ".join(session.controls)
    yield "state", session.state
    for subject, text in (
        ("progress", " ".join(filter(None, (progress_bar(session), progress_text(session))))),
        ("result", session.message),
        ("version", session.version),
        ("started by", _who(session)),
        ("asked for", moment_text(session.created_at)),
        ("began", moment_text(session.started_at)),
        ("ended", moment_text(session.finished_at)),
        ("took", took_text(session, time.time())),
        ("attempts", str(session.attempts) if session.attempts > 1 else ""),
    ):
        if text:
            yield subject, text
    before = ""
    report = {name: value for name, value in session.report.items() if value != session.message}
    for subject, text in report_lines(report):
        yield ("" if subject == before else subject), text
        before = subject
    usual = TrainingParameters().canonical()
    given = {
        name: value
        for name, value in session.parameters.canonical().items()
        if value != usual[name]
    }
    yield "parameters", text_of(given) or "defaults"


def _who(session: Session) -> str:
    return session.owner or session.trigger.replace("_", " ")


def _desk() -> TrainingDesk:
    from ml_backend.bootstrap.sessions import open_desks

    return open_desks(begin("sessions")).training


def _say(sentence: str) -> None:
    console.print(sentence, markup=False, highlight=False, soft_wrap=True)
