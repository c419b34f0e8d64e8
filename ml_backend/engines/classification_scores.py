"""How good answers to a `Choices` control are, and how honest their probabilities. Numpy only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32] | npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

NO_ANSWER = -1  # in `predicted`: the classifier abstained, which counts as wrong
CALIBRATION_BINS = 10


def balanced_accuracy(truth: IntArray, predicted: IntArray) -> float:
    """Return the mean over the classes in `truth` of the share that was recognised.

    Args:
        truth: (N,) class numbers.
        predicted: (N,) class numbers; `NO_ANSWER` is never right.

    Returns:
        0..1; 0 for no items. Brodersen et al. 2010, doi:10.1109/ICPR.2010.764.
    """
    classes, of_item = np.unique(truth, return_inverse=True)
    if len(classes) == 0:
        return 0.0
    right = np.bincount(of_item, weights=truth == predicted)
    return float(np.mean(right / np.bincount(of_item)))


def macro_f1(truth: BoolArray, predicted: BoolArray) -> float:
    """Return the mean of 2 TP / (2 TP + FP + FN) over the classes that occur in either.

    Args:
        truth: (N, C), whether the item has the choice.
        predicted: (N, C), whether it was answered.

    Returns:
        0..1; 0 where no class occurs. Classes that nobody has and nobody answered are left out.
    """
    both = np.count_nonzero(truth & predicted, axis=0)
    either = np.count_nonzero(truth, axis=0) + np.count_nonzero(predicted, axis=0)
    occurs = either > 0
    if not occurs.any():
        return 0.0
    return float(np.mean(2 * both[occurs] / either[occurs]))


def expected_calibration_error(
    confidence: FloatArray, right: BoolArray, *, bins: int = CALIBRATION_BINS
) -> float:
    """Return how far stated probabilities are from how often they came true.

    The mean over bins of equal width of |share right - mean confidence|, weighted by the items in
    each: Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.

    Args:
        confidence: (N,) in 0..1, the probability that was stated.
        right: (N,), whether what it was stated of came true.
        bins: how many; the first holds 0, every bin its upper edge.

    Returns:
        0..1; 0 for no items.
    """
    if len(confidence) == 0:
        return 0.0
    stated = np.asarray(confidence, np.float64)
    bin_of = np.clip(np.ceil(stated * bins).astype(np.int64) - 1, 0, bins - 1)
    gap = np.bincount(bin_of, weights=right - stated, minlength=bins)
    return float(np.abs(gap).sum() / len(stated))


def class_indicators(numbers: IntArray, classes: int) -> BoolArray:
    """Return class numbers (N,) as (N, C), true in the item's column; all false for no answer."""
    return np.asarray(numbers[:, None] == np.arange(classes)[None, :])
