"""`predict`: masks for image files, without Label Studio."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ml_backend.cli.console import begin, complaints, console, fail, sentences
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
from ml_backend.errors import BackendError


class FileFormat(StrEnum):
    """File formats of masks."""

    TIF = "tif"
    PNG = "png"
    NPY = "npy"
    ROI = "roi"
    GEOJSON = "geojson"
    COCO = "coco"


def predict(
    files: Annotated[list[Path], typer.Argument(help="Image files.")],
    output: Annotated[
        Path | None, typer.Option(help="Folder for the results; default: beside each file.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A model's name, a session's id or the path of a checkpoint; default: MODEL."
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
    file_format: Annotated[
        FileFormat,
        typer.Option(
            "--format",
            help="Of the masks: label images, ROIs for ImageJ, GeoJSON for QuPath, or COCO.",
        ),
    ] = FileFormat.TIF,
    flows: Flows = False,
) -> None:
    """Segment image files: masks and an overlay picture for each."""
    from rich.markup import escape
    from rich.progress import Progress

    from ml_backend.bootstrap.networks import file_predictor
    from ml_backend.domain import SegmentationOptions
    from ml_backend.formats.mask_files import MaskFormat
    from ml_backend.service.file_prediction import refuse_equal_targets

    options = SegmentationOptions(
        diameter=diameter,
        flow_threshold=flow_threshold,
        cellprob_threshold=cellprob_threshold,
        iterations=iterations,
        min_size=min_size,
        clahe=clahe,
        plane=plane,
        channels=channel_numbers(channels),
    )
    mask_format = (
        MaskFormat.TIFF if file_format is FileFormat.TIF else MaskFormat(file_format.value)
    )
    failed = 0
    with sentences():
        refuse_equal_targets(files, folder=output, mask_format=mask_format)
        settings = begin("predict")
        with (
            file_predictor(settings, model) as predictor,
            Progress(console=complaints) as progress,
        ):
            for file in progress.track(files, description="segmenting"):
                try:
                    done = predictor.predict(
                        file,
                        options=options,
                        folder=output,
                        mask_format=mask_format,
                        score_threshold=score_threshold,
                        with_flows=flows,
                    )
                except BackendError as error:
                    failed += 1
                    progress.console.print(
                        f"[red]{escape(str(file))}[/]: {escape(error.message)}",
                        highlight=False,
                        soft_wrap=True,
                    )
                    continue
                diameter_text = f"{done.segmentation.diameter:.1f}"
                written = ", ".join(map(str, (done.masks, done.overlay, *done.flows)))
                console.print(
                    f"{file}: {done.count} objects, diameter {diameter_text} px -> {written}",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
    if failed:
        fail(f"{failed} of {len(files)} files could not be segmented.")
