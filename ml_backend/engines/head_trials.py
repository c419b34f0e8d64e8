"""One kind of model tried on folds of the labelled items. Needs scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_backend.engines.calibration import (
    BoolArray,
    Calibration,
    Scores,
    fit_calibration,
    uncalibrated,
)
from ml_backend.engines.classification_scores import (
    balanced_accuracy,
    expected_calibration_error,
    macro_f1,
)
from ml_backend.engines.head_fitting import Examples, Fit, learnable
from ml_backend.engines.head_models import Embedded
from ml_backend.engines.heads import CHOSEN_FROM, Scorer, chosen_classes

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ItemClusters:
    """The k-means cluster of each item."""

    rows: IntArray  # (N,) of the clustering's centres, -1 for none
    count: int  # how many clusters there are


@dataclass(frozen=True, kw_only=True)
class LabelledItems:
    """The labelled items of one control."""

    embeddings: FloatArray  # (N, D)
    targets: BoolArray  # (N, C)
    groups: IntArray  # (N,)
    clusters: ItemClusters | None
    independent: bool

    def examples(self, chosen: IntArray, learned: IntArray) -> Examples:
        """Return the chosen items with the columns that can be learned."""
        return Examples(
            embeddings=self.embeddings[chosen],
            targets=self.targets[np.ix_(chosen, learned)],
            groups=self.groups[chosen],
            clusters=None if self.clusters is None else self.clusters.rows[chosen],
            centres=0 if self.clusters is None else self.clusters.count,
            independent=self.independent,
        )

    def scorer(self, chosen: IntArray, fit: Fit | None, seed: int) -> Scorer:
        """Return what `fit` learns from the chosen items."""
        targets = self.targets[chosen]
        learned = np.flatnonzero(learnable(targets, self.independent))
        if fit is None or (not self.independent and len(learned) < 2):
            learned = learned[:0]
        return Scorer(
            model=fit(self.examples(chosen, learned), seed) if fit and len(learned) else None,
            learned=learned,
            fixed=_fixed_scores(targets, learned, self.independent),
            independent=self.independent,
        )

    def scores(self, scorer: Scorer, chosen: IntArray) -> Scores:
        """Return the scores (N, C) of the chosen items."""
        rows = None if self.clusters is None else self.clusters.rows[chosen]
        return scorer.scores(Embedded(embeddings=self.embeddings[chosen], clusters=rows))


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How one kind of model did on items that it was not fitted to."""

    scores: Scores  # (N, C) not calibrated
    quality: float  # balanced accuracy or macro F1, 0..1
    error_before: float  # expected calibration error
    error_after: float  # calibrated on the other folds


def run_trial(
    items: LabelledItems, fit: Fit, folds: IntArray, seed: int, on_fold: Callable[[int], None]
) -> Trial:
    """Fit to all folds but one, in turn, and score on that one.

    Args:
        items: N of them.
        fit: what is tried.
        folds: (N,) the fold of each item, at least two.
        seed: of the fits.
        on_fold: called with the number of folds done.
    """
    count = int(folds.max()) + 1
    scores = np.zeros(items.targets.shape)
    scorers = []
    for fold in range(count):
        on_fold(fold)
        held_out = np.flatnonzero(folds == fold)
        scorer = items.scorer(np.flatnonzero(folds != fold), fit, seed)
        scores[held_out] = items.scores(scorer, held_out)
        scorers.append(scorer)
    on_fold(count)
    # each fold calibrated by the others only: otherwise the error looks smaller than it is
    calibrated = np.zeros_like(scores)
    for fold, scorer in enumerate(scorers):
        held_out = folds == fold
        others = calibrate(scores[~held_out], items.targets[~held_out], scorer)
        calibrated[held_out] = others.probabilities(scores[held_out], independent=items.independent)
    raw = uncalibrated(scores.shape[1]).probabilities(scores, independent=items.independent)
    return Trial(
        scores=scores,
        quality=_quality(calibrated, items),
        error_before=_calibration_error(raw, items),
        error_after=_calibration_error(calibrated, items),
    )


def calibrate(scores: Scores, targets: BoolArray, scorer: Scorer) -> Calibration:
    """Return the calibration; what was not learned keeps its probability."""
    fitted = fit_calibration(scores, targets, independent=scorer.independent)
    if not scorer.independent:
        return fitted
    plain = uncalibrated(scores.shape[1])
    learned = np.isin(np.arange(scores.shape[1]), scorer.learned)
    return Calibration(
        slopes=np.where(learned, fitted.slopes, plain.slopes),
        offsets=np.where(learned, fitted.offsets, plain.offsets),
    )


def _quality(probabilities: Scores, items: LabelledItems) -> float:
    if items.independent:
        return macro_f1(items.targets, probabilities > CHOSEN_FROM)
    return balanced_accuracy(np.argmax(items.targets, axis=1), chosen_classes(probabilities))


def _calibration_error(probabilities: Scores, items: LabelledItems) -> float:
    if items.independent:
        yes = probabilities > CHOSEN_FROM
        sure = np.maximum(probabilities, 1 - probabilities)
        return expected_calibration_error(sure.ravel(), (yes == items.targets).ravel())
    right = chosen_classes(probabilities) == np.argmax(items.targets, axis=1)
    return expected_calibration_error(probabilities.max(axis=1), right)


def _fixed_scores(targets: BoolArray, learned: IntArray, independent: bool) -> FloatArray:
    """Return the scores (C,) of classes that are not learned: see `heads.Scorer`."""
    count, classes = targets.shape
    others = np.delete(np.arange(classes), learned)
    fixed = np.zeros(classes, np.float32)
    if independent:
        fixed[others] = np.where(targets[:, others].any(axis=0), 1, -1) * np.log(count + 1)
        return fixed
    used = targets[:, others].any(axis=0)
    unused = np.count_nonzero(~used)
    if unused:
        fixed[others[~used]] = -np.log((count + 2) * unused)
        fixed[others[used]] = np.log((count + 1) / (count + 2))
    return fixed
