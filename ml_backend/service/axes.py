"""The axes of a picture of curves: what range they show, and where their numbers stand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LOGARITHMIC_FROM = 50.0  # largest value over smallest
_LEAST, _MOST = 1e-12, 1e100  # what lies beyond stands at the edge


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A range of values, linear or logarithmic, with the values that are written beside it."""

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    @classmethod
    def of(cls, values: Sequence[float]) -> Axis:
        """Return an axis over positive values, logarithmic where they differ by magnitudes."""
        positive = [min(max(value, _LEAST), _MOST) for value in values if value > 0]
        if positive and max(positive) > LOGARITHMIC_FROM * min(positive):
            first = math.floor(math.log10(min(positive)))
            last = math.ceil(math.log10(max(positive)))
            every = max(1, math.ceil((last - first) / 6))
            ticks = tuple(10.0**power for power in range(first, last + 1, every))
            return cls(low=10.0**first, high=10.0**last, ticks=ticks, logarithmic=True)
        return cls.from_zero(values)

    @classmethod
    def from_zero(cls, values: Sequence[float]) -> Axis:
        """Return a linear axis from 0 (or the smallest value below it) to the largest value."""
        high = min(max([0.0, *values]), _MOST)
        low = max(min([0.0, *values]), -_MOST)
        if high - low < _LEAST:
            low, high = 0.0, 1.0
        step = _round_step((high - low) / 4)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        return cls(
            low=first * step,
            high=last * step,
            ticks=tuple(number * step for number in range(first, last + 1)),
        )

    @classmethod
    def unit(cls) -> Axis:
        """Return the axis from 0 to 1."""
        return cls(low=0.0, high=1.0, ticks=(0.0, 0.25, 0.5, 0.75, 1.0))

    def share(self, value: float) -> float:
        """Return how far along the axis a value stands: 0 at its low end, 1 at its high end."""
        low, high, at = self.low, self.high, value
        if self.logarithmic:
            low, high, at = (math.log10(max(number, _LEAST)) for number in (low, high, at))
        return min(1.0, max(0.0, (at - low) / (high - low)))


def epoch_ticks(epochs: Sequence[int]) -> Axis:
    """Return the axis over epochs, whole numbers from the first to the last."""
    first, last = (min(epochs), max(epochs)) if epochs else (1, 1)
    if first == last:
        return Axis(low=first - 1, high=last + 1, ticks=(float(first),))
    step = max(1, round(_round_step((last - first) / 8)))
    later = [number for number in range(0, last + 1, step) if number >= first + step / 2]
    return Axis(low=first, high=last, ticks=(float(first), *map(float, later)))


def text_of(value: float) -> str:
    """Return a number as people read it, three digits of it."""
    return f"{value:.3g}" if math.isfinite(value) else "no number"


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2, 5, 10, ... times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * 0.999999)
