"""What inference can be told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict


class InferOptions(TypedDict, total=False):
    """Options of inference; what is left out is as the server has it."""

    model: str  # "auto", built-in, trained or uploaded name, session id, path on the server
    diameter: float | None  # of the objects, pixels; None = estimated
    flow_threshold: float  # largest flow error of an instance; 0.4
    cellprob_threshold: float  # smallest cell probability of a pixel, a logit; 0.0
    niter: int | None  # steps along the flows; None = from the diameter
    min_size: int  # pixels; 15
    score_threshold: float  # smallest score of an instance, 0..1; 0.0
    enable_clahe: bool  # whether the contrast is equalised first; False
    plane: int | None  # of a stack, 0 = first; None = chosen
    channels: Sequence[int] | None  # of the image, 0 = first; None = chosen
