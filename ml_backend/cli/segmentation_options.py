"""What `predict` and `infer` can both be told about a segmentation, as options of a command."""

from __future__ import annotations

from typing import Annotated

import typer

from ml_backend.cli.console import fail

Diameter = Annotated[
    float | None, typer.Option(min=1, help="Of the objects, in pixels; default: estimated.")
]
FlowThreshold = Annotated[float, typer.Option(min=0, help="Largest flow error.")]
CellProbabilityThreshold = Annotated[float, typer.Option(help="Smallest cell probability.")]
Iterations = Annotated[
    int | None,
    typer.Option(min=1, max=100_000, help="Steps along the flows; default: from the diameter."),
]
ScoreThreshold = Annotated[
    float, typer.Option(min=0, max=1, help="Smallest score of an object, from 0 to 1.")
]
MinSize = Annotated[int, typer.Option(min=0, help="Smallest object, in pixels.")]
Clahe = Annotated[bool, typer.Option(help="Equalise the contrast first.")]
Plane = Annotated[int | None, typer.Option(min=0, help="Of a stack; 0 = first.")]
Channels = Annotated[str | None, typer.Option(help="Such as 0 or 0,2; 0 = first.")]
Flows = Annotated[
    bool, typer.Option(help="Write flows, cell probability and final positions, too.")
]


def channel_numbers(text: str | None) -> tuple[int, ...] | None:
    """Return the channels that a person names, such as 0,2; leaves where they are none."""
    if text is None:
        return None
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        fail(f"--channels {text!r} is not a list of numbers such as 0 or 0,2.")
    if any(number < 0 for number in numbers) or len(numbers) > 3:
        fail("--channels takes one to three numbers from 0 on.")
    return numbers
