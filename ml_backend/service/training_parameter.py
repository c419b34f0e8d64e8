"""Something that a caller may say of a training: which values it takes, and what holds without."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ml_backend.recipes import DEFAULTS, Defaults

Value = int | float | bool
Default = Value | str  # a text where it is no single value


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the reference fine-tuning service does without a word of the caller."""

    default: Default
    why: str  # why ours is the same or another


@dataclass(frozen=True, kw_only=True)
class TrainingParameter:
    """Something that a caller may say of a training."""

    name: str
    kind: type[int] | type[float] | type[bool]
    meaning: str
    field: str  # of TrainingParameters
    low: float = 0.0
    high: float = 0.0
    is_above: bool = False  # `low` itself is not allowed
    step: int = 1  # the value must be a multiple of it
    of_projects_only: bool = False
    common: Default = ""  # the default where it is the same for all
    own: Callable[[Defaults], Default] | None = None  # else the default of an architecture
    reference: Reference | None = None  # None: the reference service has no such parameter

    @property
    def allowed(self) -> str:
        """Return which values are allowed, in words."""
        if self.kind is bool:
            return "true or false"
        noun = "a whole number" if self.kind is int else "a number"
        of_what = f", a multiple of {self.step}" if self.step > 1 else ""
        if self.is_above:
            return f"{noun} above {self.low:g}, at most {self.high:g}{of_what}"
        return f"{noun} from {self.low:g} to {_plain(self.high)}{of_what}"

    def defaults(self) -> dict[str, Default]:
        """Return the default of each architecture."""
        own = self.own
        if own is None:
            return dict.fromkeys(DEFAULTS, self.common)
        return {name: own(defaults) for name, defaults in DEFAULTS.items()}

    def read(self, value: Any) -> Value:
        """Return a value from outside.

        Raises:
            ValueError: it is not allowed.
        """
        if self.kind is bool:
            if not isinstance(value, bool):
                raise ValueError
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError
        if not math.isfinite(value) or (self.kind is int and value != int(value)):
            raise ValueError
        is_low = value <= self.low if self.is_above else value < self.low
        if is_low or value > self.high or (self.step > 1 and value % self.step):
            raise ValueError
        return self.kind(value)


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"
