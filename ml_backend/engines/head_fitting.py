"""Fitting the models of heads. Needs scikit-learn, which is imported where it is used."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ml_backend.engines.calibration import Scores
from ml_backend.engines.classification_scores import balanced_accuracy, macro_f1
from ml_backend.engines.clustering import is_agreed
from ml_backend.engines.folds import deal_folds, largest_strata_sample, strata_of
from ml_backend.engines.head_models import (
    ClustersModel,
    Kind,
    LogisticModel,
    MlpModel,
    Model,
    NeighboursModel,
    unit,
    vote_scores,
    vote_shares,
)

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

INVERSE_PENALTIES: Final = (0.001, 0.01, 0.1, 1.0, 10.0)  # scikit-learn's C, of 1000 items
CHOSEN_ON: Final = 2000  # items that C, and the neighbours, are chosen on
SQUARED_LENGTH: Final = 100.0  # of an embedding, which the penalties are for
INNER_FOLDS: Final = 3
LOGISTIC_ITERATIONS: Final = 400

NEIGHBOURS: Final = (1, 3, 5, 9, 15)
MOST_REFERENCES: Final = 5000  # all are looked at for every prediction

MLP_FROM: Final = 50  # items; a network of fewer is noise
HIDDEN_UNITS: Final = 64
MLP_PENALTY: Final = 10.0  # of the squared weights, for all items together
MLP_ITERATIONS: Final = 200
EARLY_STOPPING_FROM: Final = 2000  # items; the tenth of fewer is too small to tell when to stop


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Labelled items to learn from: L classes, none of them of all items or of none."""

    embeddings: FloatArray | Scores  # (M, D) scaled
    targets: BoolArray  # (M, L), exactly one in each row unless `independent`
    groups: IntArray  # (M,) items of one group look alike and stay together
    clusters: IntArray | None  # (M,) the row of each item's cluster centre, -1 for none
    centres: int  # how many clusters there are
    independent: bool  # each class is there or not

    @cached_property
    def numbers(self) -> IntArray:
        """Return the class (M,) of each item that has exactly one."""
        return np.asarray(np.argmax(self.targets, axis=1))

    def part(self, chosen: IntArray) -> Examples:
        """Return the chosen items."""
        return replace(
            self,
            embeddings=self.embeddings[chosen],
            targets=self.targets[chosen],
            groups=self.groups[chosen],
            clusters=None if self.clusters is None else self.clusters[chosen],
        )

    def balance(self) -> Scores:
        """Return the weight of each class (L,) that makes all count alike, 1 on average."""
        counts = self.targets.sum(axis=0)
        return np.asarray(len(self.targets) / (len(counts) * counts.clip(1)))


Fit = Callable[[Examples, int], Model]


def competitors(examples: Examples, seed: int) -> dict[Kind, Fit]:
    """Return what can be fitted to examples, the simpler first, its settings chosen on them.

    The settings are the same for every fold that is then fitted: with others in each, scores would
    be sharper in one than in the next, and no temperature could fit all of them.
    """
    fits: dict[Kind, Fit] = {}
    if examples.clusters is not None and examples.centres:
        fits[Kind.CLUSTERS] = fit_cluster_table
    fits[Kind.LOGISTIC] = partial(fit_logistic, inverse_penalty=choose_penalty(examples, seed))
    count, cosine = choose_neighbours(examples, seed)
    fits[Kind.NEIGHBOURS] = partial(fit_neighbours, neighbours=count, cosine=cosine)
    if len(examples.targets) >= MLP_FROM:
        fits[Kind.MLP] = fit_mlp
    return fits


def fit_cluster_table(examples: Examples, _seed: int) -> Model:
    """Return the choices of the clusters that are named, with Laplace-smoothed probabilities.

    A cluster with too few labelled items, or whose items disagree (`clustering.is_agreed`), says
    nothing: all its scores are equal.
    """
    clusters = examples.clusters
    if clusters is None:
        raise ValueError("there are no clusters to learn from")
    classes = examples.targets.shape[1]
    counts = np.zeros((examples.centres, classes))
    inside = clusters >= 0
    np.add.at(counts, clusters[inside], examples.targets[inside])
    support = np.bincount(clusters[inside], minlength=examples.centres)[:, None]
    share = counts / support.clip(1)
    if examples.independent:
        table = np.log(counts + 1) - np.log(support - counts + 1)
        agreed = _agreed(support, np.maximum(share, 1 - share))
    else:
        table = np.log((counts + 1) / (support + classes))
        agreed = _agreed(support, share.max(axis=1, keepdims=True))
    return ClustersModel(table=np.where(agreed, table, 0).astype(np.float32))


def _agreed(support: IntArray, purity: Scores) -> BoolArray:
    return np.asarray(np.vectorize(is_agreed, otypes=[bool])(support, purity), bool)


def choose_penalty(examples: Examples, seed: int) -> float:
    """Return the inverse penalty (scikit-learn's C, of 1000 items) that cross-validation prefers.

    It is given for 1000 items and scaled by their number, so that one chosen on a part means the
    same on the whole.
    """
    part = examples.part(largest_strata_sample(strata_of(examples.targets), CHOSEN_ON, seed))
    part = _rotated(part)[1]
    folds = deal_folds(strata_of(part.targets), part.groups, INNER_FOLDS, seed)
    if folds.max(initial=0) == 0:
        return INVERSE_PENALTIES[len(INVERSE_PENALTIES) // 2]
    # of equals the first: the stronger penalty
    return max(INVERSE_PENALTIES, key=lambda inverse: _inner_score(part, folds, inverse))


def fit_logistic(examples: Examples, _seed: int, *, inverse_penalty: float) -> LogisticModel:
    """Return a logistic regression in which all classes count alike."""
    rotation, rotated = _rotated(examples)
    weights, biases = _logistic(rotated, inverse_penalty)
    return LogisticModel(  # weights of the rotated items are those of the items, rotated back
        weights=np.ascontiguousarray(weights @ rotation, np.float32),
        biases=biases.astype(np.float32),
    )


def _rotated(examples: Examples) -> tuple[Scores, Examples]:
    """Return a basis (R, D) of the items' span, and the items in it, of a usual length.

    The penalty knows only lengths, so that a rotation changes no fit; it makes one much faster
    where there are more numbers in an embedding than items. One length for all embedders makes a
    penalty mean the same for all.
    """
    embeddings = examples.embeddings.astype(np.float64)
    count, width = embeddings.shape
    basis = np.linalg.qr(embeddings.T)[0].T if count < width else np.eye(width)
    basis *= gain(embeddings, SQUARED_LENGTH)
    return basis, replace(examples, embeddings=embeddings @ basis.T)


def gain(embeddings: FloatArray | Scores, squared_length: float) -> float:
    """Return the factor that gives embeddings (N, D) this squared length on average."""
    squared = float(np.square(embeddings, dtype=np.float64).sum(axis=1).mean())
    return float(np.sqrt(squared_length / squared)) if squared > 0 else 1.0


def _inner_score(examples: Examples, folds: IntArray, inverse: float) -> float:
    found = np.zeros(examples.targets.shape)
    for fold in range(folds.max() + 1):
        held_out = np.flatnonzero(folds == fold)
        rest = examples.part(np.flatnonzero(folds != fold))
        known = np.flatnonzero(learnable(rest.targets, rest.independent))
        if rest.independent:  # a value that all or none of the rest have is not learned
            found[held_out] = np.where(rest.targets.all(axis=0), 1.0, -1.0)
        else:
            found[held_out] = np.where(rest.targets.any(axis=0), 0.0, -np.inf)
        if len(known) >= (1 if rest.independent else 2):
            weights, biases = _logistic(replace(rest, targets=rest.targets[:, known]), inverse)
            scores = examples.embeddings[held_out] @ weights.T + biases
            found[np.ix_(held_out, known)] = scores
    return _quality(found, examples)


def learnable(targets: BoolArray, independent: bool) -> BoolArray:
    """Return which classes (L,) of `targets: (M, L)` have both something and its opposite.

    Of single choices that is every class that occurs, as long as two do.
    """
    used = np.asarray(targets.any(axis=0), bool)
    return used & ~np.asarray(targets.all(axis=0), bool) if independent else used


def _quality(scores: Scores, examples: Examples) -> float:
    if examples.independent:
        return macro_f1(examples.targets, scores > 0)
    return balanced_accuracy(examples.numbers, np.argmax(scores, axis=1))


def _logistic(examples: Examples, inverse: float) -> tuple[Scores, Scores]:
    from sklearn.linear_model import LogisticRegression

    def fit(targets: npt.NDArray[Any]) -> tuple[Scores, Scores]:
        regression = LogisticRegression(
            C=inverse * 1000 / len(targets),
            class_weight="balanced",
            max_iter=LOGISTIC_ITERATIONS,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # not converged to the last digit
            regression.fit(examples.embeddings, targets)
        return regression.coef_, regression.intercept_

    if not examples.independent:
        return both_ways(*fit(examples.numbers))
    fits = [fit(column) for column in examples.targets.T]
    return np.vstack([weights for weights, _ in fits]), np.concatenate([bias for _, bias in fits])


def both_ways(weights: Scores, biases: Scores) -> tuple[Scores, Scores]:
    """Return a row per class, where of two classes only the second one's log-odds are given."""
    if len(weights) > 1:
        return weights, biases
    return np.vstack([-weights / 2, weights / 2]), np.concatenate([-biases / 2, biases / 2])


def choose_neighbours(examples: Examples, seed: int) -> tuple[int, bool]:
    """Return how many neighbours should vote, and whether by cosine, by leaving one item out.

    What is left out is an item with all of its group.
    """
    part = examples.part(largest_strata_sample(strata_of(examples.targets), CHOSEN_ON, seed))
    best, settings = -1.0, (NEIGHBOURS[0], False)
    for cosine in (False, True):
        for count, quality in _leave_one_out(part, cosine).items():
            if quality > best:
                best, settings = quality, (count, cosine)
    return settings


def fit_neighbours(
    examples: Examples, seed: int, *, neighbours: int, cosine: bool
) -> NeighboursModel:
    """Return the labelled items as neighbours; votes count by how rare their class is."""
    kept = largest_strata_sample(strata_of(examples.targets), MOST_REFERENCES, seed)
    references = examples.part(kept)
    votes = references.targets.astype(np.float32)
    if not examples.independent:
        votes *= references.balance().astype(np.float32)
    vectors = unit(references.embeddings) if cosine else references.embeddings
    return NeighboursModel(
        references=np.ascontiguousarray(vectors, np.float32),
        votes=votes,
        neighbours=neighbours,
        cosine=cosine,
        independent=examples.independent,
    )


def _leave_one_out(examples: Examples, cosine: bool) -> dict[int, float]:
    vectors = (unit(examples.embeddings) if cosine else examples.embeddings).astype(np.float64)
    squared = np.einsum("nd,nd->n", vectors, vectors)
    apart = squared[:, None] + squared[None] - 2 * (vectors @ vectors.T)
    together = examples.groups[:, None] == examples.groups[None]
    apart[together] = np.inf
    most = min(max(NEIGHBOURS), len(apart) - int(together.sum(axis=1).max()))
    nearest = np.argsort(apart, axis=1, kind="stable")[:, :most]
    distances = np.sqrt(np.take_along_axis(apart, nearest, axis=1).clip(0))
    votes = examples.targets[nearest] * (1.0 if examples.independent else examples.balance())
    found = {}
    for count in NEIGHBOURS:
        if count <= most:
            shares = vote_shares(distances[:, :count], votes[:, :count])
            scores = vote_scores(shares, count, independent=examples.independent)
            found[count] = _quality(scores, examples)
    return found


def fit_mlp(examples: Examples, seed: int) -> MlpModel:
    """Return a network with one hidden layer; of single choices all classes count alike."""
    from sklearn.neural_network import MLPClassifier

    count = len(examples.targets)
    factor = gain(examples.embeddings, examples.embeddings.shape[1])  # each number is about 1
    rarest = int(examples.targets.sum(axis=0).min())
    network = MLPClassifier(
        hidden_layer_sizes=(HIDDEN_UNITS,),
        alpha=MLP_PENALTY,
        max_iter=MLP_ITERATIONS,
        early_stopping=count >= EARLY_STOPPING_FROM and rarest >= 10,
        n_iter_no_change=15,
        random_state=seed,
    )
    weights = None if examples.independent else examples.balance()[examples.numbers]
    targets = examples.targets if examples.independent else examples.numbers
    if examples.independent and targets.shape[1] == 1:
        targets = targets[:, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged to the last digit
        network.fit(examples.embeddings * factor, targets, sample_weight=weights)
    (hidden, last), (hidden_biases, biases) = network.coefs_, network.intercepts_
    rows, biases = last.T, biases
    if not examples.independent:
        rows, biases = both_ways(rows, biases)
    return MlpModel(
        hidden_weights=np.ascontiguousarray(hidden.T * factor, np.float32),
        hidden_biases=hidden_biases.astype(np.float32),
        weights=np.ascontiguousarray(rows, np.float32),
        biases=biases.astype(np.float32),
    )
