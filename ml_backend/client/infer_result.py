"""What a network finds in an image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_backend.domain import LabelImage


@dataclass(frozen=True, kw_only=True)
class ModelUsed:
    """The network that made a result."""

    name: str
    architecture: str | None = None
    sha256: str | None = None  # of the weights
    licence: str | None = None  # of the weights
    diameter: float | None = None  # of the objects it was fine-tuned on, pixels


@dataclass(frozen=True, kw_only=True, eq=False)
class Flows:
    """What the network said of every pixel; None where it says nothing of that kind."""

    hsv: npt.NDArray[Any] | None  # (Y, X, 3) uint8: the flows as a picture
    xy: npt.NDArray[Any] | None  # (2, Y, X) float32: the flow in Y, then in X, times five
    cellprob: npt.NDArray[Any] | None  # (Y, X) float32: logit of the cell probability
    final_positions: npt.NDArray[Any] | None  # (2, Y, X) int32: row and column it ends in


@dataclass(frozen=True, kw_only=True, eq=False)
class InferResult:
    """The instances in one image."""

    name: str  # of the image
    masks: LabelImage = field(repr=False)  # (Y, X) int32, 0 = background, 1..N = instances
    scores: npt.NDArray[np.float32] = field(repr=False)  # (N,) in 0..1; [i] is of instance i + 1
    diameter: float | None  # pixels: given or estimated
    notes: tuple[str, ...] = ()  # a sentence each
    flows: Flows | None = field(default=None, repr=False)
    model: ModelUsed | None = None

    @property
    def count(self) -> int:
        """Return the number of instances."""
        return len(self.scores)
