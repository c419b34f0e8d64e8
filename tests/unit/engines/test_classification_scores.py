"""Scores agree with scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.calibration import calibration_curve
from sklearn.metrics import balanced_accuracy_score, f1_score

from ml_backend.engines.classification_scores import (
    NO_ANSWER,
    balanced_accuracy,
    class_indicators,
    expected_calibration_error,
    macro_f1,
)

pairs = st.integers(1, 40).flatmap(
    lambda count: st.tuples(
        arrays(np.int64, count, elements=st.integers(0, 4)),
        arrays(np.int64, count, elements=st.integers(0, 4)),
    )
)
pairs_of_sets = st.tuples(st.integers(1, 30), st.integers(1, 5)).flatmap(
    lambda shape: st.tuples(arrays(np.bool_, shape), arrays(np.bool_, shape))
)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
@given(pairs)
def test_balanced_accuracy_is_that_of_scikit_learn(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    truth, predicted = pair

    assert balanced_accuracy(truth, predicted) == pytest.approx(
        balanced_accuracy_score(truth, predicted)
    )


@given(pairs)
def test_macro_f1_of_single_choices_is_that_of_scikit_learn(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    truth, predicted = pair

    found = macro_f1(class_indicators(truth, 5), class_indicators(predicted, 5))

    assert found == pytest.approx(f1_score(truth, predicted, average="macro"))


@given(pairs_of_sets)
def test_macro_f1_of_multiple_choices_leaves_out_classes_that_do_not_occur(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    truth, predicted = pair
    occurs = truth.any(axis=0) | predicted.any(axis=0)
    if not occurs.any():
        assert macro_f1(truth, predicted) == 0
        return

    of_each = [f1_score(truth[:, c], predicted[:, c]) for c in np.flatnonzero(occurs)]

    assert macro_f1(truth, predicted) == pytest.approx(np.mean(of_each))


def test_no_answer_counts_as_wrong() -> None:
    truth = np.array([0, 0, 1, 1])

    assert balanced_accuracy(truth, np.array([0, NO_ANSWER, 1, 1])) == 0.75
    assert not class_indicators(np.array([NO_ANSWER]), 3).any()


@pytest.mark.parametrize("seed", range(3))
def test_the_calibration_error_agrees_with_the_calibration_curve(seed: int) -> None:
    random = np.random.default_rng(seed)
    confidence = random.uniform(0, 1, 500)
    right = random.uniform(0, 1, 500) < confidence**2

    came_true, stated = calibration_curve(right, confidence, n_bins=10)
    sizes = np.histogram(confidence, 10, (0, 1))[0]

    assert (sizes > 0).all()
    assert expected_calibration_error(confidence, right) == pytest.approx(
        (np.abs(came_true - stated) * sizes).sum() / 500
    )


def test_certainty_that_is_right_has_no_calibration_error() -> None:
    assert expected_calibration_error(np.ones(5), np.ones(5, bool)) == 0
    assert expected_calibration_error(np.ones(4), np.array([True, True, True, False])) == 0.25


def test_scores_of_nothing_are_zero() -> None:
    nothing = np.zeros(0, np.int64)

    assert balanced_accuracy(nothing, nothing) == 0
    assert macro_f1(np.zeros((0, 3), bool), np.zeros((0, 3), bool)) == 0
    assert expected_calibration_error(np.zeros(0), np.zeros(0, bool)) == 0
