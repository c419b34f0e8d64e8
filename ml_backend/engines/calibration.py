"""From scores of a classifier to probabilities that can be believed.

One choice of several: temperature scaling, Guo et al. 2017, "On Calibration of Modern Neural
Networks", section 4.2, which never changes the order of the classes. Any number of choices: each
its own sigmoid, Platt 1999, "Probabilistic Outputs for Support Vector Machines". Both are fitted on
scores of items that the classifier was not trained on, against targets a little short of certain
(Platt's, from Laplace's rule of succession), so that ten right answers do not become certainty.
Isotonic regression needs about a thousand items (Niculescu-Mizil and Caruana 2005), which projects
rarely have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

FLATTEST, SHARPEST = 0.02, 20.0  # bounds of a slope: no evidence at all, and every item right
LARGEST_OFFSET: Final = 20.0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How the scores of each class become its probability."""

    slopes: FloatArray  # (C,) > 0; where one choice is made all are 1 / temperature
    offsets: FloatArray  # (C,) log-odds; where one choice is made all are 0

    def probabilities(self, scores: Scores, *, independent: bool) -> Scores:
        """Return probabilities (N, C) in 0..1.

        Args:
            scores: (N, C), log-odds where `independent`, else log-probabilities (a constant may be
                added to each row).
            independent: each class is there or not; else exactly one is, and rows sum to 1.
        """
        scaled = scores * self.slopes.astype(np.float64) + self.offsets.astype(np.float64)
        return sigmoid(scaled) if independent else np.exp(log_softmax(scaled))


def uncalibrated(classes: int) -> Calibration:
    """Return the calibration that takes scores at their word."""
    return Calibration(slopes=np.ones(classes, np.float32), offsets=np.zeros(classes, np.float32))


def fit_calibration(scores: Scores, targets: BoolArray, *, independent: bool) -> Calibration:
    """Return the calibration under which `targets` are likeliest.

    Args:
        scores: (N, C) as for `Calibration.probabilities`, of items not trained on.
        targets: (N, C), whether the item has the class; exactly one unless `independent`.
        independent: each class is there or not.
    """
    classes = scores.shape[1]
    if len(scores) == 0:
        return uncalibrated(classes)
    if not independent:
        return Calibration(
            slopes=np.full(classes, _slope(scores, targets), np.float32),
            offsets=np.zeros(classes, np.float32),
        )
    fitted = np.array([_platt(scores[:, c], targets[:, c]) for c in range(classes)], np.float32)
    return Calibration(slopes=fitted[:, 0].copy(), offsets=fitted[:, 1].copy())


def log_softmax(scores: Scores) -> Scores:
    """Return log-probabilities (N, C) whose exponentials sum to 1 in each row."""
    shifted = scores - scores.max(axis=1, keepdims=True, initial=-np.inf)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def sigmoid(scores: Scores) -> Scores:
    """Return 1 / (1 + exp(-scores)), without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -scores)))


def _slope(scores: Scores, targets: BoolArray) -> float:
    from scipy.optimize import minimize_scalar

    count, classes = scores.shape
    if classes < 2:
        return 1.0
    certain = (count + 1) / (count + 2)
    wanted = np.where(targets, certain, (1 - certain) / (classes - 1))

    def surprise(log_slope: float) -> float:
        return -float((wanted * log_softmax(scores * np.exp(log_slope))).sum() / count)

    best = minimize_scalar(surprise, bounds=(np.log(FLATTEST), np.log(SHARPEST)), method="bounded")
    return float(np.exp(best.x))


def _platt(scores: Scores, targets: BoolArray) -> tuple[float, float]:
    from scipy.optimize import minimize

    have = int(np.count_nonzero(targets))
    lack = len(targets) - have
    wanted = np.where(targets, (have + 1) / (have + 2), 1 / (lack + 2))

    def surprise(parameters: Scores) -> tuple[float, Scores]:
        scaled = scores * parameters[0] + parameters[1]
        # -log p = log(1 + exp(-s)), -log (1 - p) = log(1 + exp(s))
        value = wanted * np.logaddexp(0, -scaled) + (1 - wanted) * np.logaddexp(0, scaled)
        slope = sigmoid(scaled) - wanted
        return float(value.mean()), np.array([(slope * scores).mean(), slope.mean()])

    base_rate = np.log((have + 1) / (lack + 1))
    best = minimize(
        surprise,
        np.array([FLATTEST, base_rate]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(FLATTEST, SHARPEST), (-LARGEST_OFFSET, LARGEST_OFFSET)],
    )
    return float(best.x[0]), float(best.x[1])
