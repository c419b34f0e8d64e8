"""`sessions`: trainings, how far they are, and what came of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ml_backend.cli.backend import open_backend
from ml_backend.cli.console import add_row, complaints, console, fail, show_table
from ml_backend.cli.session_following import watch
from ml_backend.cli.session_starting import restart, start
from ml_backend.cli.session_texts import (
    debug_lines,
    duration_text,
    moment_text,
    progress_bar,
    progress_text,
    report_lines,
    subject_text,
    text_of,
    took_text,
)
from ml_backend.client import Client, SessionInfo
from ml_backend.learning import SessionState, SessionStatus, TrainingParameters
from ml_backend.service.sessions import DEFAULT_LIMIT, MAX_LIMIT
from ml_backend.service.training_parameters import named_parameters

sessions = typer.Typer(help="Show and steer trainings.", no_args_is_help=True)

_SHOWN_OF_ID = 12  # characters in a terminal; the beginning is enough for every command

SessionId = Annotated[str, typer.Argument(help="Of the session, or the beginning of it.")]
STYLES: dict[str, str] = {
    SessionStatus.QUEUED: "cyan",
    SessionStatus.RUNNING: "bold cyan",
    SessionStatus.COMPLETED: "green",
    SessionStatus.FAILED: "red",
    SessionStatus.STOPPED: "yellow",
    SessionStatus.UNKNOWN: "magenta",
}


@sessions.callback()
def about() -> None:
    """Show and steer trainings. They run in the trainer; this only looks at them and asks."""


@sessions.command("list")
def list_sessions(
    project: Annotated[str | None, typer.Option(help="Number of a project.")] = None,
    state: Annotated[SessionState | None, typer.Option(help="Only these.")] = None,
    status: Annotated[
        list[SessionStatus] | None,
        typer.Option(help="Only these; several times for several. unknown: its trainer is gone."),
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(help="Only on these datasets; several times for several.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Only with these labels; several times for several.")
    ] = None,
    owner: Annotated[str | None, typer.Option(help="Only those of this token.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MAX_LIMIT, help="At most.")] = DEFAULT_LIMIT,
) -> None:
    """List trainings, newest first."""
    with open_backend("sessions") as client:
        listed = client.sessions.find(
            project=project,
            state=state,
            status_types=status or (),
            datasets=dataset or (),
            labels=label or (),
            owner=owner,
            page_size=limit,
        )
        found = list(islice(listed, limit))
    if not found:
        is_any = (project, state, status, dataset, label, owner) == (None,) * 6
        said = "No training was asked for yet." if is_any else "No training is like that."
        complaints.print(said, style="dim")
        return
    now = datetime.now(UTC)
    table = Table(
        "session", "trained on", "state", "started by", "began", "took", "what came of it"
    )
    for session in found:
        add_row(
            table,
            session.id[:_SHOWN_OF_ID] if console.is_terminal else session.id,
            subject_text(session),
            Text(session.status, style=STYLES.get(session.status, "")),
            _who(session),
            moment_text(session.started_training_at or session.created_at),
            took_text(session, now),
            session.message or progress_text(session),
        )
    show_table(table)


sessions.command()(start)
sessions.command()(restart)
sessions.command()(watch)


@sessions.command()
def show(session_id: SessionId) -> None:
    """Show how far a training is, what it was made of and what the gate says of it."""
    with open_backend("sessions") as client:
        session = client.sessions.get(session_id)
    _show_facts(_described(session), status=session.status)


@sessions.command()
def stop(session_id: SessionId) -> None:
    """Stop a training; its checkpoint stays, and `resume` goes on from there."""
    with open_backend("sessions") as client:
        session = client.sessions.stop(session_id)
    if session.state is SessionState.RUNNING:
        _say(f"session {session.id} stops after the batch in hand")
    else:
        _say(f"session {session.id} is {session.state}")


@sessions.command()
def resume(session_id: SessionId) -> None:
    """Go on with a training that was stopped or has failed, from its last checkpoint."""
    with open_backend("sessions") as client:
        session = client.sessions.resume(session_id)
    _say(f"session {session.id}: {progress_text(session)}")


@sessions.command()
def delete(session_id: SessionId) -> None:
    """Forget a training that has ended, with its curves; the model that it made stays."""
    with open_backend("sessions") as client:
        session = client.sessions.get(session_id)
        client.sessions.delete(session.id)
    made = f"; its model {session.version} stays" if session.version else ""
    _say(f"session {session.id} is deleted{made}")


@sessions.command()
def debug(session_id: SessionId) -> None:
    """Show why a training is in the state it is in, and what to do about it."""
    with open_backend("sessions") as client:
        found = client.sessions.debug(session_id)
    _show_facts(debug_lines(found), status=found.status)


@sessions.command()
def curves(
    session_id: SessionId,
    output: Annotated[
        Path | None, typer.Option(help="File for them instead: a .png picture, or .json.")
    ] = None,
) -> None:
    """Show loss, precision on the hold-out and learning rate, a line for each epoch."""
    if output is not None and output.suffix.lower() not in (".png", ".json"):
        fail(f"--output {str(output)!r} must end in .png or .json.")
    with open_backend("sessions") as client:
        if output is not None:
            _write_curves(client, session_id, output)
            return
        points = client.sessions.curves(session_id)
    table = Table("epoch", "step", "loss", "hold-out loss", "AP@0.5", "AP@0.75", "AP@0.9")
    table.add_column("learning rate")
    table.add_column("after")
    for point in points:
        numbers = (point.loss, point.val_loss, point.ap50, point.ap75, point.ap90, point.lr)
        table.add_row(
            str(point.epoch),
            str(point.step),
            *("" if number is None else f"{number:.4g}" for number in numbers),
            "" if point.seconds is None else duration_text(point.seconds),
        )
    show_table(table)


def _write_curves(client: Client, session_id: str, path: Path) -> None:
    if path.suffix.lower() == ".png":
        client.sessions.picture(session_id, path)
    else:
        client.sessions.curves_file(session_id, path)
    _say(f"{path} shows {len(client.sessions.curves(session_id))} epochs")


def _show_facts(facts: Iterator[tuple[str, str]], *, status: str) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for subject, text in facts:
        style = STYLES.get(status, "") if subject == "state" else ""
        table.add_row(subject, Text(text, style=style))
    show_table(table)


def _described(session: SessionInfo) -> Iterator[tuple[str, str]]:
    """Yield what a person may want to know of a session, as (subject, text)."""
    yield "session", session.id
    if session.project is not None:
        yield "project", session.project.key
    else:
        yield "dataset", session.dataset or ""
    yield "trains", ", ".join(session.controls)
    yield "state", session.status
    for subject, text in (
        ("progress", " ".join(filter(None, (progress_bar(session), progress_text(session))))),
        ("result", session.message),
        ("model", session.version),
        ("label", session.label),
        ("starts from", session.base),
        ("goes on from", session.restarted_from and f"session {session.restarted_from}"),
        ("started by", _who(session)),
        ("asked for", moment_text(session.created_at)),
        ("began", moment_text(session.started_training_at)),
        ("ended", moment_text(session.finished_training_at)),
        ("took", took_text(session, datetime.now(UTC))),
        ("attempts", str(session.attempts) if session.attempts > 1 else ""),
    ):
        if text:
            yield subject, text
    before = ""
    report = {name: value for name, value in session.report.items() if value != session.message}
    for subject, text in report_lines(report):
        yield ("" if subject == before else subject), text
        before = subject
    usual = named_parameters(TrainingParameters())
    given = {name: value for name, value in session.parameters.items() if value != usual.get(name)}
    yield "parameters", text_of(given) or "defaults"


def _who(session: SessionInfo) -> str:
    return session.owner or session.trigger.replace("_", " ")


def _say(sentence: str) -> None:
    console.print(sentence, markup=False, highlight=False, soft_wrap=True)
