"""Which weights of a training are the best."""

from __future__ import annotations

import json
import math

import pytest

from ml_backend.training.training_state import TrainingState

NOTHING = (0.0, 0.0, 0.0)


def a_state() -> TrainingState:
    return TrainingState(steps=10, precision="float32")


def test_a_higher_precision_is_better_whatever_the_loss() -> None:
    state = a_state()

    assert state.judge((0.5, 0.3, 0.1), 1.0)
    assert state.judge((0.6, 0.3, 0.1), 2.0)
    assert not state.judge((0.5, 0.3, 0.1), 0.1)
    assert state.without_rise == 1


def test_the_loss_decides_between_equal_precisions() -> None:
    state = a_state()

    assert state.judge(NOTHING, 2.0)
    assert not state.judge(NOTHING, 3.0)
    assert state.judge(NOTHING, 1.0)


def test_without_scores_and_losses_the_last_weights_are_the_best() -> None:
    state = a_state()

    assert state.judge(None, None)
    assert state.judge(None, None)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_worse_than_any_that_is_one(loss: float) -> None:
    state = a_state()

    assert state.judge(NOTHING, loss)  # the first is the best so far
    assert state.judge(NOTHING, 5.0)
    assert not state.judge(NOTHING, loss)


def test_a_precision_that_is_no_number_is_worse_than_none() -> None:
    state = a_state()

    assert state.judge((math.nan, 0.0, 0.0), 1.0)
    assert state.judge(NOTHING, 2.0)


def test_it_is_kept_as_json_and_comes_back() -> None:
    state = a_state()
    state.judge(NOTHING, math.nan)
    state.note("A crop was blank.")

    assert TrainingState.from_json(json.loads(json.dumps(state.to_json()))) == state
