"""Where a training stands: all that a checkpoint keeps besides tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(kw_only=True)
class TrainingState:
    """Changes with every step; JSON can hold it."""

    steps: int  # planned
    precision: str  # number format of the computation
    step: int = 0  # done
    losses: float = 0.0  # sum over this epoch's steps so far
    losses_of: int = 0  # steps in it
    learning_rate: float = 0.0  # of the last step
    seconds: float = 0.0  # of its budget that are spent; see `Stopwatch`
    best: list[float] | None = None  # mean AP, or 0 where none is measured, and minus the loss
    without_rise: int = 0  # judgements since the best
    early: bool = False  # the scores do not rise any more
    notes: list[str] = field(default_factory=list)  # a sentence each

    @property
    def ended(self) -> bool:
        """Return whether there is nothing more to do."""
        return self.early or self.step >= self.steps

    def note(self, sentence: str) -> None:
        """Keep a sentence for the session's report, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def judge(
        self, precision: tuple[float, float, float] | None, validation_loss: float | None
    ) -> bool:
        """Return whether these weights are the best so far, and count those that are not.

        Args:
            precision: AP at three thresholds on the hold-out; None = not measured.
            validation_loss: decides between equal ones; None = not measured. With neither, the
                last weights are the best.

        What is no finite number is worse than any that is.
        """
        mean = sum(precision) / len(precision) if precision is not None else 0.0
        loss = validation_loss if validation_loss is not None else 0.0
        now = [value if math.isfinite(value) else -math.inf for value in (mean, -loss)]
        if self.best is None or now >= self.best:
            self.best, self.without_rise = now, 0
            return True
        self.without_rise += 1
        return False

    def to_json(self) -> dict[str, Any]:
        """Return it for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> TrainingState:
        """Return what `to_json` made."""
        return cls(**kept)
