"""Calibrated probabilities are as good as they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ml_backend.engines.calibration import (
    Calibration,
    fit_calibration,
    log_softmax,
    sigmoid,
    uncalibrated,
)
from ml_backend.engines.classification_scores import expected_calibration_error


def overconfident(count: int, seed: int, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Return log-probabilities that are `factor` times too sharp, and who was right."""
    random = np.random.default_rng(seed)
    honest = log_softmax(random.normal(0, 1.5, (count, 4)))
    numbers = [random.choice(4, p=row) for row in np.exp(honest)]
    return honest * factor, np.eye(4, dtype=bool)[numbers]


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_the_temperature_is_found(factor: float) -> None:
    scores, targets = overconfident(4000, 0, factor)

    found = fit_calibration(scores, targets, independent=False)

    assert found.slopes == pytest.approx(1 / factor, rel=0.1)
    assert not found.offsets.any()


def test_calibration_lowers_the_calibration_error_of_others() -> None:
    fitted, targets = overconfident(500, 0, 4.0)
    scores, truth = overconfident(500, 1, 4.0)
    right = np.argmax(scores, axis=1) == np.argmax(truth, axis=1)

    def error(calibration: Calibration) -> float:
        probabilities = calibration.probabilities(scores, independent=False)
        return expected_calibration_error(probabilities.max(axis=1), right)

    calibrated = fit_calibration(fitted, targets, independent=False)
    assert error(uncalibrated(4)) > 0.2
    assert error(calibrated) < 0.06


def test_each_value_of_a_multiple_choice_has_its_own_sigmoid() -> None:
    random = np.random.default_rng(0)
    honest = random.normal(0, 2, (4000, 2))
    targets = random.uniform(size=honest.shape) < sigmoid(honest)
    shown = honest * [5, 0.5] + [1, -2]

    found = fit_calibration(shown, targets, independent=True)

    np.testing.assert_allclose(found.slopes, [0.2, 2], rtol=0.15)
    np.testing.assert_allclose(found.offsets, [-0.2, 4], atol=0.4)


def test_a_few_right_answers_do_not_become_certainty() -> None:
    scores = log_softmax(np.array([[3.0, 0.0], [0.0, 3.0]] * 4))
    targets = scores > -0.5

    found = fit_calibration(scores, targets, independent=False)

    assert found.probabilities(scores, independent=False).max() == pytest.approx(0.9, abs=0.01)


def test_scores_that_are_wrong_throughout_become_a_coin_toss() -> None:
    scores = log_softmax(np.array([[3.0, 0.0], [0.0, 3.0]] * 4))

    single = fit_calibration(scores, scores < -0.5, independent=False)
    several = fit_calibration(scores, scores < -0.5, independent=True)

    assert single.probabilities(scores, independent=False).max() < 0.53
    assert several.probabilities(scores, independent=True).max() < 0.53


def test_nothing_to_fit_leaves_scores_as_they_are() -> None:
    found = fit_calibration(np.zeros((0, 3)), np.zeros((0, 3), bool), independent=False)

    assert found.slopes.tolist() == [1, 1, 1]


@settings(max_examples=50, deadline=None)
@given(
    arrays(np.float64, (6, 3), elements=st.floats(-500, 500)),
    arrays(np.bool_, (6, 3)),
    st.booleans(),
)
def test_probabilities_are_in_range_and_rows_of_single_choices_sum_to_one(
    scores: np.ndarray, targets: np.ndarray, independent: bool
) -> None:
    if not independent:
        targets = np.eye(3, dtype=bool)[targets.sum(axis=1) % 3]

    found = fit_calibration(scores, targets, independent=independent)

    probabilities = found.probabilities(scores, independent=independent)
    assert np.isfinite(probabilities).all()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    if not independent:
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
        # a temperature never changes who is first
        first = scores[np.arange(6), np.argmax(probabilities, axis=1)]
        np.testing.assert_allclose(first, scores.max(axis=1), atol=1e-6)
