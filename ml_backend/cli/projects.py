"""`projects`: the Label Studio projects that are connected, and their outlines as files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from ml_backend.cli.backend import named_server, open_backend
from ml_backend.cli.console import add_row, begin, complaints, console, fail, sentences, show_table
from ml_backend.cli.session_texts import moment_text
from ml_backend.service.project_export_request import (
    DataFormat,
    ProjectExportRequest,
    Subject,
)

projects = typer.Typer(help="Show projects and export their outlines.", no_args_is_help=True)

_NOTES_SHOWN = 20


@projects.callback()
def about() -> None:
    """Show the connected projects, and export what was drawn or found in them."""


@projects.command("list")
def list_projects() -> None:
    """List the projects that Label Studio has introduced."""
    with open_backend("projects") as client:
        found = list(client.projects.find())
    if not found:
        complaints.print("No project is connected; `ml-backend connect` adds one.", style="dim")
        return
    table = Table("project", "Label Studio", "serves", "seen", "remark")
    for project in found:
        add_row(
            table,
            str(project.id),
            project.label_studio,
            project.release or "",
            moment_text(project.last_seen_at),
            project.label_config_error or "",
        )
    show_table(table)


@projects.command()
def export(
    project: Annotated[str, typer.Argument(help="Number of the project.")],
    output: Annotated[Path, typer.Option(help="Archive to write, such as cells.zip.")],
    what: Annotated[
        Subject, typer.Option(help="What people drew, or what a version found.")
    ] = Subject.ANNOTATIONS,
    data_format: Annotated[
        DataFormat, typer.Option("--format", help="Label images in TIFF, or one COCO file.")
    ] = DataFormat.LABELS,
    images: Annotated[bool, typer.Option("--images", help="The images' files as well.")] = False,
    every: Annotated[
        bool, typer.Option("--every", help="Each person's annotation of a task.")
    ] = False,
    version: Annotated[
        str | None, typer.Option(help="Of the predictions; default: what is served.")
    ] = None,
) -> None:
    """Write annotations or predictions as label images or COCO: a folder to train or count with."""
    with sentences():
        server = named_server()
    if server is None:
        request = ProjectExportRequest(
            what=what, format=data_format, images=images, every=every, version=version
        )
        _export_here(project, request, output)
        return
    with open_backend("projects") as client, console.status(f"{server} writes it"):
        client.projects.export(
            project,
            output,
            what=what.value,
            format=data_format.value,
            images=images,
            every=every,
            version=version,
        )
    _say(f"{output} is written")


def _export_here(project: str, request: ProjectExportRequest, output: Path) -> None:
    from ml_backend.bootstrap.project_exports import export_project_here

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with sentences():
        settings = begin("export")
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            # beside it, so that it is there as a whole or not at all
            aside = tempfile.TemporaryDirectory(prefix=".export-", dir=output.parent)
            with aside as folder, Progress(*columns, console=complaints) as progress:
                task = progress.add_task("tasks", total=None)
                written = export_project_here(
                    settings,
                    project,
                    request,
                    Path(folder),
                    lambda done: progress.update(task, completed=done),
                )
                os.replace(written.path, output)
        except OSError as error:
            fail(f"{output} cannot be written ({error.strerror or error}); name another file.")
    for note in written.left_out[:_NOTES_SHOWN]:
        complaints.print(note, markup=False, highlight=False, soft_wrap=True)
    if len(written.left_out) > _NOTES_SHOWN:
        rest = len(written.left_out) - _NOTES_SHOWN
        complaints.print(f"{rest} more remarks are in export.json in the archive.")
    _say(f"{output} is written: {written.objects} objects in {written.images} images")


def _say(sentence: str) -> None:
    console.print(sentence, markup=False, highlight=False, soft_wrap=True)
