"""`models`: which networks can be served, and fetching those that others publish."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ml_backend.cli.console import complaints, console, sentences, show_table
from ml_backend.settings import read_settings

models = typer.Typer(help="Show and download networks.")


@models.callback(invoke_without_command=True)
def show(context: typer.Context) -> None:
    """Show every network that can be served by name, its licence and where its weights are."""
    from ml_backend.engines.catalogue import CELLPOSE_LICENCE, CELLPOSE_MODELS, built_in_networks

    if context.invoked_subcommand is not None:
        return
    with sentences():
        folder = read_settings().cellpose_models_dir
        shipped = built_in_networks()
    table = Table("name", "licence of the weights", "weights")
    for network in shipped:
        table.add_row(network.name, network.licence, Text(str(network.path)))
    for name in CELLPOSE_MODELS:
        path = folder / name
        missing = f"missing; `ml-backend models download {name}` fetches them"
        table.add_row(name, CELLPOSE_LICENCE, Text(str(path) if path.is_file() else missing))
    show_table(table)


@models.command()
def download(
    name: Annotated[str, typer.Argument(help="Of Cellpose's models, such as cpsam_v2.")],
    hub: Annotated[
        str | None, typer.Option(help="Address of a mirror's folder; default: Cellpose's own.")
    ] = None,
) -> None:
    """Fetch the published weights of a Cellpose model, over 1 GB, to where they are looked for."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from ml_backend.engines.catalogue import CELLPOSE_LICENCE, CELLPOSE_MODELS
    from ml_backend.engines.download import download_cellpose_model

    with sentences():
        folder = read_settings().cellpose_models_dir
        if name in CELLPOSE_MODELS:
            complaints.print(f"The licence of these weights is {CELLPOSE_LICENCE}:", end=" ")
            complaints.print("not for commercial use.", style="bold")
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        with Progress(*columns, TransferSpeedColumn(), console=complaints) as progress:
            task = progress.add_task("downloading", total=None)

            def show_arrived(arrived: int, total: int | None) -> None:
                progress.update(task, completed=arrived, total=total)

            path = download_cellpose_model(
                name,
                models_dir=folder,
                base_url=_cellpose_hub() if hub is None else hub.rstrip("/") + "/",
                report=show_arrived,
            )
    console.print(f"{path} is there", markup=False, highlight=False, soft_wrap=True)


def _cellpose_hub() -> str:
    from ml_backend.engines.networks import cellpose_hub  # imports torch

    return cellpose_hub()
