"""A trained head: from embeddings to the probability of each value of one `Choices` control.

Numpy only; `engines.head_competition` makes heads and needs scikit-learn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from ml_backend.engines.calibration import Calibration, Scores, log_softmax
from ml_backend.engines.head_models import Embedded, Kind, Model

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

TIE: Final = 1e-6  # between probabilities; so equal that the answer would be a coin toss
CHOSEN_FROM: Final = 0.5  # a probability above it puts a value into a multiple choice


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """Scores of every class: of a model where it learned the class, else by counting alone.

    Of a class that no item ever had, or of a value that every item had, nothing can be learned but
    how often that was so. Its probability is Laplace's rule of succession, (n + 1) / (n + 2) that
    what always happened happens again; what is left is shared by the classes nobody used.
    """

    model: Model | None  # None where it would have nothing to learn
    learned: IntArray  # (L,) the columns that the model answers, rising
    fixed: FloatArray  # (C,) score of the other columns; 0 in the learned ones
    independent: bool  # each class is there or not; else exactly one is

    def scores(self, items: Embedded) -> Scores:
        """Return scores (N, C): log-odds where `independent`, else log-probabilities."""
        found = np.tile(self.fixed.astype(np.float64), (len(items.embeddings), 1))
        if self.model is not None and len(found):
            answered = self.model.scores(items)
            if not self.independent:
                fixed = np.delete(self.fixed.astype(np.float64), self.learned)
                answered = log_softmax(answered) + np.log1p(-np.exp(fixed).sum())
            found[:, self.learned] = answered
        return found


@dataclass(frozen=True, kw_only=True)
class HeadReport:
    """What came out when a head was made."""

    metric: str  # "balanced accuracy" or "macro F1", of items that were not trained on
    scores: Mapping[Kind, float]  # of each competitor, 0..1; empty where nothing could be compared
    items: int  # that the head was trained on
    items_per_class: Mapping[str, int]  # of all classes of the config
    left_out: int  # labelled items whose label is none of the config's any more
    folds: int  # of the cross-validation; 0 where there was none
    calibration_error_before: float | None  # expected calibration error of items not trained on
    calibration_error_after: float | None  # the same, calibrated on yet other items
    remarks: tuple[str, ...] = ()  # sentences for a person


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a head says about items."""

    probabilities: FloatArray  # (N, C) in 0..1; rows sum to 1 where one choice is made of several
    classes: tuple[str, ...]  # of the columns


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The answer for one item."""

    choices: tuple[str, ...]  # empty: abstains
    score: float  # 0..1, the probability of the decision, also where it was too low to be told


@dataclass(frozen=True, kw_only=True)
class Head:
    """Answers one `Choices` control."""

    classes: tuple[str, ...]  # the values of the control, in the config's order
    multiple: bool  # an item may have several
    scorer: Scorer
    calibration: Calibration
    report: HeadReport = field(compare=False)

    @property
    def kind(self) -> Kind:
        """Return which kind of model serves."""
        return Kind.CONSTANT if self.scorer.model is None else self.scorer.model.kind

    def predict(self, embeddings: FloatArray, clusters: IntArray | None = None) -> Predictions:
        """Return calibrated probabilities.

        Args:
            embeddings: (N, D) float32, scaled, finite.
            clusters: (N,) the row of each item's cluster centre, -1 for none; only a head of the
                kind `clusters` looks at them.
        """
        probabilities = self.calibration.probabilities(
            self.scorer.scores(Embedded(embeddings=embeddings, clusters=clusters)),
            independent=self.scorer.independent,
        )
        return Predictions(
            probabilities=probabilities.astype(np.float32).clip(0, 1), classes=self.classes
        )


def is_independent(classes: Sequence[str], *, multiple: bool) -> bool:
    """Return whether each class is there or not by itself: also where there is only one."""
    return multiple or len(classes) == 1


def decide(
    probabilities: FloatArray,
    classes: Sequence[str],
    *,
    multiple: bool,
    unsure_below: float = 0.0,
) -> list[Decision]:
    """Return the answer for each item.

    Of a single choice: the likeliest class, with its probability as score; where the two likeliest
    are equal there is no answer. Of a multiple choice: all classes likelier than not; its score is
    the probability of the most doubtful of all those yes and no. It bounds the probability that
    the whole set is right from above (Fréchet), and unlike the product does not sink because a
    config has many values.

    Args:
        probabilities: (N, C) in 0..1.
        classes: of the columns.
        multiple: whether an item may have several.
        unsure_below: abstain where the score is lower, 0..1.
    """
    if probabilities.shape[1] == 0:
        return [Decision(choices=(), score=0.0)] * len(probabilities)
    one = _multiple_choice if multiple else _single_choice
    decisions = (one(row, classes) for row in probabilities)
    return [
        decision if decision.score >= unsure_below else Decision(choices=(), score=decision.score)
        for decision in decisions
    ]


def chosen_classes(probabilities: npt.NDArray[np.floating]) -> IntArray:
    """Return the column of the likeliest class (N,), -1 where the two likeliest are equal."""
    best = np.argmax(probabilities, axis=1)
    if probabilities.shape[1] < 2:
        return np.asarray(best, np.int64)
    second, first = np.partition(probabilities, -2, axis=1)[:, -2:].T
    return np.where(first - second > TIE, best, -1)


def _single_choice(row: FloatArray, classes: Sequence[str]) -> Decision:
    best = int(chosen_classes(row[None])[0])
    return Decision(choices=(classes[best],) if best >= 0 else (), score=float(row.max()))


def _multiple_choice(row: FloatArray, classes: Sequence[str]) -> Decision:
    return Decision(
        choices=tuple(name for name, p in zip(classes, row, strict=True) if p > CHOSEN_FROM),
        score=float(np.maximum(row, 1 - row).min()),
    )
