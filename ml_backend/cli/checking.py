"""`connect`, `doctor` and `config`: is everything as it should be?"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ml_backend.cli.console import begin, sentences, show_checks, show_table
from ml_backend.service.checks import any_failed
from ml_backend.settings import Settings, read_settings

OurAddress = Annotated[
    str | None,
    typer.Option(help="Our address as Label Studio reaches it; default: localhost and PORT."),
]


def connect(
    project: Annotated[str, typer.Argument(help="Number or exact title of the project.")],
    url: OurAddress = None,
) -> None:
    """Register the backend in a Label Studio project; may be run again at any time."""
    from ml_backend.bootstrap.label_studio import connect_project
    from ml_backend.bootstrap.records import prepare_records

    with sentences():
        settings = begin("connect")
        prepare_records(settings)
        report = connect_project(settings, project, _our_address(url, settings))
    show_checks(report.steps)
    if not report.connected:
        raise typer.Exit(1)


def doctor(
    project: Annotated[
        str | None, typer.Option(help="Number or title of a project to look at as well.")
    ] = None,
    url: OurAddress = None,
) -> None:
    """Check what usually goes wrong, and say what to do about it."""
    from ml_backend.bootstrap.doctor import examine

    with sentences():
        settings = begin("doctor")
        checks = examine(settings, backend_url=_our_address(url, settings), project=project)
    show_checks(checks)
    if any_failed(checks):
        raise typer.Exit(1)


def _our_address(url: str | None, settings: Settings) -> str:
    return (url or f"http://localhost:{settings.port}").rstrip("/")


def config() -> None:
    """Show every setting, its value (secrets masked) and what it is for."""
    with sentences():
        shown = read_settings().shown()
    table = Table("variable", "value", "what it is for")
    for variable, default, description in Settings.describe():
        value = Text(shown[variable], style="dim" if shown[variable] == default else "")
        table.add_row(variable, value, Text(description))
    show_table(table)
