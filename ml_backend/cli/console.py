"""What every command prints with, and how it begins and fails."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ml_backend.errors import BackendError, ModelError, SettingsError
from ml_backend.processes.lifeline import watch_parent
from ml_backend.processes.logs import configure_logs
from ml_backend.processes.supervisor import EXIT_SETTINGS
from ml_backend.service.checks import Check
from ml_backend.settings import Settings, read_settings

console = Console()
complaints = Console(stderr=True)


def fail(message: str, code: int = 1) -> NoReturn:
    """Print one sentence and leave."""
    complaints.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(code)


@contextmanager
def sentences() -> Iterator[None]:
    """Turn our own errors into their sentence, without a traceback."""
    try:
        yield
    except (SettingsError, ModelError) as error:
        fail(error.message, EXIT_SETTINGS)  # starting again would not help
    except BackendError as error:
        fail(error.message)


def begin(process: str, lifeline_fd: int | None = None) -> Settings:
    """Return the settings, with logs on and the parent watched.

    Raises:
        SettingsError
    """
    if lifeline_fd is not None:
        watch_parent(lifeline_fd)
    settings = read_settings()
    configure_logs(settings.log_level, process=process)
    return settings


def show_table(table: Table) -> None:
    """Print a table, fitted to a terminal, but plain and uncut where another program reads it."""
    if console.is_terminal:
        console.print(table)
        return
    table.box = None
    unbounded = console.options.update(max_width=10_000)
    width = Measurement.get(console, unbounded, table).maximum
    Console(file=console.file, width=width).print(table)


def add_row(table: Table, *cells: str | Text) -> None:
    """Add a row whose texts are shown as they are, brackets and all."""
    table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells))


def show_checks(checks: Iterable[Check]) -> None:
    """Print one line for each check, and under it what to do."""
    marks = {
        "ok": "[green]ok[/]     ",
        "warning": "[yellow]warning[/]",
        "failed": "[red]failed[/] ",
    }
    for check in checks:
        console.print(marks[check.status], f"[bold]{escape(check.name)}[/]:", end=" ")
        console.print(check.sentence, markup=False, highlight=False, soft_wrap=True)
        if check.remedy:
            console.print(
                f"        -> {check.remedy}", markup=False, highlight=False, soft_wrap=True
            )
