"""`models fetch|download|upload|pictures`: files of models, on their way in and out."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from ml_backend.callers import PERSON
from ml_backend.cli.backend import named_server, only_here, open_backend
from ml_backend.cli.console import begin, complaints, console, fail, sentences
from ml_backend.cli.models import ModelName, OfProject, models, say
from ml_backend.settings import read_settings


@models.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Of Cellpose's models, such as cpsam_v2.")],
    hub: Annotated[
        str | None, typer.Option(help="Address of a mirror's folder; default: Cellpose's own.")
    ] = None,
) -> None:
    """Fetch the published weights of a Cellpose model, over 1 GB, to where they are looked for."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from ml_backend.engines.download import download_cellpose_model
    from ml_backend.model_files.known import CELLPOSE_LICENCE, CELLPOSE_MODELS

    only_here("models fetch")
    with sentences():
        folder = read_settings().cellpose_models_dir
        if name in CELLPOSE_MODELS:
            complaints.print(f"The licence of these weights is {CELLPOSE_LICENCE}:", end=" ")
            complaints.print("not for commercial use.", style="bold")
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        with Progress(*columns, TransferSpeedColumn(), console=complaints) as progress:
            task = progress.add_task("fetching", total=None)

            def show_arrived(arrived: int, total: int | None) -> None:
                progress.update(task, completed=arrived, total=total)

            path = download_cellpose_model(
                name,
                models_dir=folder,
                base_url=_cellpose_hub() if hub is None else hub.rstrip("/") + "/",
                report=show_arrived,
            )
    say(f"{path} is there")


@models.command()
def download(
    model: ModelName,
    output: Annotated[
        Path, typer.Option(help="File for the weights, or a folder; default: this folder.")
    ] = Path(),
    of: OfProject = None,
) -> None:
    """Write the weights of a model into a file of your own, and check that they arrived whole."""
    with open_backend("models") as client:
        target = client.models.download(model, output, owner=of, may_replace=False)
    with target.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    say(f"{target} is there, SHA-256 {digest}")


@models.command()
def upload(
    file: Annotated[
        Path, typer.Argument(help=".safetensors or .pt, or a BioImage.IO package (.zip).")
    ],
    name: Annotated[
        str | None,
        typer.Option(help="Small letters, digits and dashes; default: the file's name."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Of the weights, such as CC-BY-4.0; default: unknown.")
    ] = None,
    description: Annotated[str | None, typer.Option(help="A sentence for people.")] = None,
    diameter: Annotated[
        float | None, typer.Option(min=1, help="Of the objects it was trained on, in pixels.")
    ] = None,
) -> None:
    """Take in a checkpoint of your own: it is checked and tried here, and no code in it is run."""
    if not file.is_file():
        fail(f"There is no file {file}; give the path of a checkpoint.")
    with sentences():
        if named_server() is not None:
            name, licence = _upload_there(file, name, licence, description, diameter)
        else:
            name, licence = _upload_here(file, name, licence, description, diameter)
    say(
        f"{name} can be used by name now (licence: {licence}); `ml-backend models activate {name} "
        "--project NUMBER` serves it"
    )


def _upload_there(
    file: Path,
    name: str | None,
    licence: str | None,
    description: str | None,
    diameter: float | None,
) -> tuple[str, str]:
    """Send a checkpoint to the server that is named; return the model's name and licence."""
    with open_backend("models") as client, console.status(f"sending {file.name}"):
        made = client.models.upload(
            file, name=name, licence=licence, description=description, diameter=diameter
        )
    return made.name, made.licence or "unknown"


def _upload_here(
    file: Path,
    name: str | None,
    licence: str | None,
    description: str | None,
    diameter: float | None,
) -> tuple[str, str]:
    """Take a checkpoint in on this machine; return the model's name and licence."""
    from ml_backend.service.upload_request import checked_upload

    settings = begin("models")
    request = checked_upload(
        name=name,
        file_name=file.name,
        licence=licence,
        description=description,
        diameter=diameter,
        by=PERSON.who,
    )

    from ml_backend.bootstrap.uploads import upload_here

    with console.status(f"trying {file.name}"):
        made = upload_here(settings, file, request)
    return made.name, made.component.licence


@models.command()
def pictures(
    model: ModelName,
    output: Annotated[Path, typer.Option(help="Folder for them.")],
    of: OfProject = None,
) -> None:
    """Write the pictures of a model that learned classes: the embedding, and each cluster."""
    with open_backend("models") as client:
        written = client.models.pictures(model, output, owner=of)
    say(f"{len(written)} pictures are in {output}")


def _cellpose_hub() -> str:
    from ml_backend.engines.networks import cellpose_hub  # imports torch

    return cellpose_hub()
