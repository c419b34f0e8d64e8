"""The hidden command that a trainer runs one session with."""

from __future__ import annotations

from typing import Annotated

import typer

from ml_backend.cli.console import begin, sentences
from ml_backend.learning import Lease
from ml_backend.processes.training_child import EXIT_GIVEN_BACK
from ml_backend.training.interruption import Interrupted, Interruption


def train_session(
    session_id: str,
    lease: Annotated[int, typer.Option()],
    owner: Annotated[str, typer.Option()],
    lifeline_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run one training session under a lease; the trainer does this by itself."""
    interruption = Interruption()
    try:
        interruption.listen()  # before anything slow: being told to go is no crash
        with sentences():
            settings = begin("training", lifeline_fd)

            from ml_backend.bootstrap.training import run_session

            code = run_session(
                settings,
                Lease(session_id=session_id, number=lease, owner=owner),
                interruption,
            )
    except Interrupted:
        code = EXIT_GIVEN_BACK
    raise typer.Exit(code)
