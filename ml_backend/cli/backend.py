"""The backend that commands ask: a server that is named, else the records of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated

import typer

from ml_backend.cli.console import fail, sentences
from ml_backend.client import Client
from ml_backend.processes.logs import configure_logs
from ml_backend.settings import read_client_settings, read_settings

ASKING = frozenset({"export", "infer", "models", "projects", "sessions"})
"""The commands that can ask a server."""

_given_server: ContextVar[str | None] = ContextVar("server", default=None)


def remember_server(
    context: typer.Context,
    server: Annotated[
        str | None,
        typer.Option(
            help="Address of a running backend to ask; default: ML_BACKEND_URL, else the records "
            "of this machine. Its token comes from ML_BACKEND_TOKEN."
        ),
    ] = None,
) -> None:
    """Cell masks, classes and learning models for Label Studio."""
    _given_server.set(server)
    command = context.invoked_subcommand or ""
    if command not in ASKING:
        only_here(command)


def named_server() -> str | None:
    """Return the address of the server that is named, None = the records of this machine.

    Raises:
        SettingsError: ML_BACKEND_URL is no address.
    """
    return _given_server.get() or read_client_settings().ml_backend_url


def only_here(command: str) -> None:
    """Refuse --server for a command that no server can be asked for."""
    if _given_server.get() is not None:
        fail(f"`ml-backend {command}` works on this machine only; leave --server away.", 2)


@contextmanager
def open_backend(process: str) -> Iterator[Client]:
    """Yield a client of the server that is named, else of the records; errors become sentences.

    Args:
        process: What the command is called in logs.
    """
    with sentences(), _client(process, named_server()) as client:
        yield client


def _client(process: str, server: str | None) -> Client:
    if server is not None:
        return Client.from_environment(server)

    from ml_backend.bootstrap.local_client import local_client  # it builds the web application

    settings = read_settings()
    # what is refused is the command's own sentence already
    level = "ERROR" if settings.log_level in ("INFO", "WARNING") else settings.log_level
    configure_logs(level, process=process)
    return local_client(settings)
