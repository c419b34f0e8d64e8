"""The learning rate over a training, and its length under a budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_backend.training.schedule import learning_rate_factor, steps_within


@given(steps=st.integers(1, 5000))
def test_it_stays_between_nothing_and_all(steps: int) -> None:
    for step in {0, 1, steps // 3, steps // 2, steps - 1, steps + 5}:
        assert 0 < learning_rate_factor(step, steps) <= 1


@pytest.mark.parametrize("steps", [10, 100, 1000, 10000])
def test_a_short_training_is_not_all_warm_up(steps: int) -> None:
    factors = [learning_rate_factor(step, steps) for step in range(steps)]
    highest = factors.index(max(factors))
    assert max(factors) > 0.9
    assert highest <= max(1, steps // 10)
    assert factors[-1] < 0.1
    assert factors[highest:] == sorted(factors[highest:], reverse=True)


def test_a_training_that_fits_its_budget_keeps_its_length() -> None:
    assert steps_within(100, 10, seconds=10, pace_s=1, budget_s=500) == 100


def test_a_training_that_is_too_long_ends_with_its_budget() -> None:
    assert steps_within(100, 10, seconds=10, pace_s=1, budget_s=50) == 50


def test_what_is_done_stays_done() -> None:
    assert steps_within(100, 10, seconds=60, pace_s=1, budget_s=50) == 10
    assert steps_within(100, 0, seconds=60, pace_s=1, budget_s=50) == 1
