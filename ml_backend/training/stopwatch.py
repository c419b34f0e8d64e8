"""The time that counts against the budget of a training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopwatch:
    """Measures a training from `start` on, over all attempts, less what happens while `paused`.

    A budget is for learning. How long images take to prepare and networks to compare says nothing
    about how much is learned, and a short budget would be used up by them.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Keep the clock (seconds since any moment); nothing is measured before `start`."""
        self._clock = clock
        self._earlier_s = 0.0
        self._started: float | None = None
        self._paused_s = 0.0

    def start(self, earlier_s: float) -> None:
        """Begin an attempt; `earlier_s` are the seconds of those before."""
        self._earlier_s, self._started, self._paused_s = earlier_s, self._clock(), 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave this part out."""
        began = self._clock()
        try:
            yield
        finally:
            self._paused_s += self._clock() - began

    @property
    def elapsed_s(self) -> float:
        """Return the seconds of this attempt, what was left out included."""
        return 0.0 if self._started is None else self._clock() - self._started

    @property
    def attempt_s(self) -> float:
        """Return the seconds of this attempt that count."""
        return self.elapsed_s - self._paused_s

    @property
    def seconds(self) -> float:
        """Return the seconds of all attempts that count."""
        return self._earlier_s + self.attempt_s
