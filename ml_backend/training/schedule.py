"""The learning rate over a training, and its length under a time budget."""

from __future__ import annotations

import math

WARM_UP = 0.05  # share of the steps: a short training gets a short warm-up
LONGEST_WARM_UP = 200  # steps
LAST_FACTOR = 0.01  # of the highest learning rate, at the end


def learning_rate_factor(step: int, steps: int) -> float:
    """Return what the learning rate of `step` (0 = the first) is multiplied with, 0..1.

    It rises linearly in the warm-up and falls as half a cosine to a hundredth. Cellpose's own rises
    over ten epochs whatever their number, so that ten epochs are all warm-up.
    """
    warm_up = max(1, min(LONGEST_WARM_UP, round(WARM_UP * steps)))
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    progress = min(1.0, (step - warm_up) / max(1, steps - warm_up))
    return LAST_FACTOR + (1 - LAST_FACTOR) * 0.5 * (1 + math.cos(math.pi * progress))


def steps_within(steps: int, step: int, *, seconds: float, pace_s: float, budget_s: float) -> int:
    """Return how many steps to plan so that training ends within its budget, at most `steps`.

    Args:
        steps: planned so far.
        step: done.
        seconds: spent so far.
        pace_s: seconds a step takes, scores on the hold-out shared out.
        budget_s: seconds for all.
    """
    left = math.floor(max(0.0, budget_s - seconds) / max(pace_s, 1e-9))
    return max(1, step, min(steps, step + left))
