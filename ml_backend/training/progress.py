"""How far a fine-tuning has come, as its watchers are told."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A moment of a fine-tuning."""

    phase: str  # "preparing" (flows), "training", "scoring"
    epoch: int  # from 1; 0 before the first
    epochs: int  # planned; a time budget can shorten it
    step: int  # steps done
    steps: int  # planned
    seconds: float  # of training so far, earlier attempts included; see `Stopwatch`
    eta_s: float | None  # seconds to the planned end; None = not known yet
    loss: float | None = None  # mean over this epoch so far
    samples_per_s: float | None = None  # crops, while training

    def to_json(self) -> dict[str, Any]:
        """Return it as the session's record keeps it."""
        return asdict(self)
