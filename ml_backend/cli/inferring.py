"""`infer`: masks for image files, found by a running backend."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ml_backend.cli.backend import named_server
from ml_backend.cli.console import complaints, console, fail, sentences
from ml_backend.cli.segmentation_options import (
    CellProbabilityThreshold,
    Channels,
    Clahe,
    Diameter,
    Flows,
    FlowThreshold,
    Iterations,
    MinSize,
    Plane,
    ScoreThreshold,
    channel_numbers,
)
from ml_backend.client import Client, InferOptions
from ml_backend.client.address import DEFAULT_URL
from ml_backend.errors import BackendError, ServerUnreachable, Unauthorized


class AnswerFormat(StrEnum):
    """What masks can be answered as."""

    TIF = "tif"
    PNG = "png"
    NPY = "npy"
    ROI = "roi"
    GEOJSON = "geojson"
    COCO = "coco"
    JSON = "json"


def infer(
    images: Annotated[
        list[str], typer.Argument(help="Image files, or addresses that the backend fetches.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="Folder for the results; default: this folder.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A model's name or a session's id; default: what the backend's MODEL is."
        ),
    ] = None,
    diameter: Diameter = None,
    flow_threshold: FlowThreshold = 0.4,
    cellprob_threshold: CellProbabilityThreshold = 0.0,
    iterations: Iterations = None,
    score_threshold: ScoreThreshold = 0.0,
    min_size: MinSize = 15,
    clahe: Clahe = False,
    plane: Plane = None,
    channels: Channels = None,
    answer_format: Annotated[
        AnswerFormat,
        typer.Option(
            "--format",
            help="Of the masks: label images, ROIs for ImageJ, GeoJSON for QuPath, COCO or JSON.",
        ),
    ] = AnswerFormat.TIF,
    flows: Flows = False,
) -> None:
    """Segment images with a running backend: that of --server, ML_BACKEND_URL or this machine.

    `ml-backend predict` does it without one.
    """
    options: InferOptions = {
        "diameter": diameter,
        "flow_threshold": flow_threshold,
        "cellprob_threshold": cellprob_threshold,
        "niter": iterations,
        "min_size": min_size,
        "score_threshold": score_threshold,
        "enable_clahe": clahe,
        "plane": plane,
        "channels": channel_numbers(channels),
    }
    if model is not None:
        options["model"] = model
    folder = Path() if output is None else output
    wanted = "tiff" if answer_format is AnswerFormat.TIF else answer_format.value
    with sentences():
        _make(folder)
        client = Client.from_environment(named_server() or DEFAULT_URL)
    failed = 0
    with sentences(), client:
        for image in images:
            try:
                written = client.infer_file(
                    image, folder, format=wanted, return_flows=flows, **options
                )
            except (ServerUnreachable, Unauthorized):
                raise  # it would be the same for all
            except BackendError as error:
                failed += 1
                complaints.print(f"{image}: {error.message}", markup=False, soft_wrap=True)
                continue
            console.print(f"{image} -> {written}", markup=False, highlight=False, soft_wrap=True)
    if failed:
        fail(f"{failed} of {len(images)} images could not be segmented.")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"{folder} cannot be written ({error.strerror}); give --output another folder.")
