"""What comes out of a fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class FineTuned:
    """A fine-tuned network on disk."""

    weights: Path  # the best by the hold-out; safetensors that `engines` loads
    checkpoint: Path  # the last state with everything needed to go on
    epochs: int  # trained, the last one perhaps in part
    steps: int  # trained
    stopped: bool  # someone asked for it; the best so far is in `weights`
    early: bool  # the scores did not rise any more
    diameter: float | None  # image pixels, for prediction; None = to be estimated per image
    notes: tuple[str, ...] = ()  # a sentence each
