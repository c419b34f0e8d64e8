"""What a head works out of embeddings: plain arrays and numpy, no scikit-learn.

Every model answers `scores` (N, L) of the L classes that it learned. Where an item has exactly one
class they are log-probabilities up to a constant per row; where each class is there or not
(`independent`) they are log-odds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, ClassVar, Final, Protocol

import numpy as np
import numpy.typing as npt

from ml_backend.engines.calibration import Scores
from ml_backend.errors import CheckpointInvalid

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_CHUNK: Final = 256  # items whose neighbours are worked out at once


class Kind(StrEnum):
    """Which kind of model a head is; the simpler ones come first."""

    CONSTANT = "constant"  # the same answer for everything: nothing to tell apart yet
    CLUSTERS = "clusters"  # the choice of the item's k-means cluster
    LOGISTIC = "logistic"  # logistic regression
    NEIGHBOURS = "neighbours"  # of the labelled items nearest to it
    MLP = "mlp"  # a small network with one hidden layer


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Items as models see them."""

    embeddings: FloatArray  # (N, D) scaled
    clusters: IntArray | None  # (N,) the row of each item's cluster centre, -1 for none


class Model(Protocol):
    """A classifier of embeddings."""

    @property
    def kind(self) -> Kind:
        """Return which kind it is."""
        ...

    def scores(self, items: Embedded) -> Scores:
        """Return scores (N, L)."""
        ...

    def arrays(self) -> Mapping[str, FloatArray]:
        """Return what `model_of_arrays` makes it from again."""
        ...

    def settings(self) -> Mapping[str, Any]:
        """Return the JSON values that belong to the arrays."""
        ...


@dataclass(frozen=True, kw_only=True)
class LogisticModel:
    """One linear score per class."""

    weights: FloatArray  # (L, D)
    biases: FloatArray  # (L,)
    kind: ClassVar[Kind] = Kind.LOGISTIC

    def scores(self, items: Embedded) -> Scores:
        """Return scores (N, L)."""
        return np.asarray(items.embeddings @ self.weights.T + self.biases, np.float64)

    def arrays(self) -> Mapping[str, FloatArray]:
        """Return its arrays by name."""
        return {"weights": self.weights, "biases": self.biases}

    def settings(self) -> Mapping[str, Any]:
        """Return its JSON values."""
        return {}


@dataclass(frozen=True, kw_only=True)
class MlpModel:
    """One hidden layer of rectified linear units."""

    hidden_weights: FloatArray  # (H, D)
    hidden_biases: FloatArray  # (H,)
    weights: FloatArray  # (L, H)
    biases: FloatArray  # (L,)
    kind: ClassVar[Kind] = Kind.MLP

    def scores(self, items: Embedded) -> Scores:
        """Return scores (N, L)."""
        hidden = np.maximum(items.embeddings @ self.hidden_weights.T + self.hidden_biases, 0)
        return np.asarray(hidden @ self.weights.T + self.biases, np.float64)

    def arrays(self) -> Mapping[str, FloatArray]:
        """Return its arrays by name."""
        return {
            "hidden_weights": self.hidden_weights,
            "hidden_biases": self.hidden_biases,
            "weights": self.weights,
            "biases": self.biases,
        }

    def settings(self) -> Mapping[str, Any]:
        """Return its JSON values."""
        return {}


@dataclass(frozen=True, kw_only=True)
class NeighboursModel:
    """Votes of the nearest labelled items, weighted by 1 / distance (Dudani 1976).

    For the cosine metric the references are unit vectors and so is what is compared with them: the
    distance between two is then sqrt(2 - 2 cos), in the order of the cosine distance.
    """

    references: FloatArray  # (M, D)
    votes: FloatArray  # (M, L) >= 0; where `independent` 0 or 1
    neighbours: int  # at most M vote
    cosine: bool  # else Euclidean
    independent: bool
    kind: ClassVar[Kind] = Kind.NEIGHBOURS

    @cached_property
    def _squared(self) -> FloatArray:
        return np.asarray(np.einsum("md,md->m", self.references, self.references))

    def scores(self, items: Embedded) -> Scores:
        """Return scores (N, L): of the shares of the votes, smoothed by one vote (Laplace)."""
        embeddings = items.embeddings
        found = np.empty((len(embeddings), self.votes.shape[1]))
        for start in range(0, len(embeddings), _CHUNK):
            some = embeddings[start : start + _CHUNK]
            found[start : start + len(some)] = self._scores(unit(some) if self.cosine else some)
        return found

    def _scores(self, some: FloatArray) -> Scores:
        count = min(self.neighbours, len(self.references))
        squared = self._squared - 2 * (some @ self.references.T)
        nearest = np.argpartition(squared, count - 1, axis=1)[:, :count]
        # from the difference itself: the expanded square loses small distances to rounding
        distances = np.linalg.norm(some[:, None] - self.references[nearest], axis=2)
        shares = vote_shares(distances, self.votes[nearest])
        return vote_scores(shares, count, independent=self.independent)

    def arrays(self) -> Mapping[str, FloatArray]:
        """Return its arrays by name."""
        return {"references": self.references, "votes": self.votes}

    def settings(self) -> Mapping[str, Any]:
        """Return its JSON values."""
        return {"neighbours": self.neighbours, "cosine": self.cosine}


def vote_shares(distances: npt.NDArray[Any], votes: npt.NDArray[Any]) -> Scores:
    """Return the votes for each class (N, L), of k neighbours whose weights sum to k.

    Args:
        distances: (N, k).
        votes: (N, k, L) of those neighbours.
    """
    # the small addition makes equal embeddings outvote all others, and share where there are many
    near = distances + 1e-4 * distances.mean(axis=1, keepdims=True) + 1e-9
    weights = (1 / near).astype(np.float64)
    weights *= weights.shape[1] / weights.sum(axis=1, keepdims=True)
    return np.asarray(np.einsum("nk,nkl->nl", weights, votes))


def vote_scores(shares: Scores, count: int, *, independent: bool) -> Scores:
    """Return the scores that belong to `vote_shares` of `count` neighbours."""
    if independent:
        against = np.maximum(count - shares, 0)
        return np.asarray(np.log(shares + 0.5) - np.log(against + 0.5))
    return np.asarray(np.log(shares + 1 / shares.shape[1]))


def unit(vectors: FloatArray | Scores) -> FloatArray:
    """Return vectors (N, D) at length 1; those of length 0 as they are."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)


@dataclass(frozen=True, kw_only=True)
class ClustersModel:
    """What the labelled items of each k-means cluster say."""

    table: FloatArray  # (K, L) scores by cluster; of a cluster without a name all are equal
    kind: ClassVar[Kind] = Kind.CLUSTERS

    def scores(self, items: Embedded) -> Scores:
        """Return scores (N, L)."""
        clusters = items.clusters
        if clusters is None:
            clusters = np.full(len(items.embeddings), -1)
        # the last row is that of items in no cluster
        rows = np.vstack([self.table, np.zeros((1, self.table.shape[1]), np.float32)])
        return np.asarray(rows[clusters], np.float64)

    def arrays(self) -> Mapping[str, FloatArray]:
        """Return its arrays by name."""
        return {"table": self.table}

    def settings(self) -> Mapping[str, Any]:
        """Return its JSON values."""
        return {}


def model_of_arrays(
    kind: Kind,
    arrays: Mapping[str, FloatArray],
    settings: Mapping[str, Any],
    *,
    width: int,
    learned: int,
    independent: bool,
) -> Model:
    """Return the model that `arrays` and `settings` describe.

    Args:
        kind: not `constant`, which has no model.
        arrays: float32, finite.
        settings: of `Model.settings`.
        width: D, the numbers in an embedding.
        learned: L, the classes that it answers.
        independent: each class is there or not.

    Raises:
        CheckpointInvalid: arrays are missing, too many or of other shapes.
    """
    expected = _expected_shapes(kind, arrays, width, learned)
    shapes = {name: array.shape for name, array in arrays.items()}
    if shapes != expected or any(0 in shape for shape in shapes.values()):
        raise CheckpointInvalid(
            f"A head of the kind {kind.value!r} has arrays of the shapes {shapes}, expected were "
            f"{expected}; the file is damaged."
        )
    if kind is Kind.LOGISTIC:
        return LogisticModel(**arrays)
    if kind is Kind.MLP:
        return MlpModel(**arrays)
    if kind is Kind.CLUSTERS:
        return ClustersModel(**arrays)
    neighbours, cosine = settings.get("neighbours"), settings.get("cosine")
    if type(neighbours) is not int or neighbours < 1 or type(cosine) is not bool:
        raise CheckpointInvalid(
            "A head of neighbours does not say how many vote and by which metric; the file is "
            "damaged."
        )
    return NeighboursModel(**arrays, neighbours=neighbours, cosine=cosine, independent=independent)


def _expected_shapes(
    kind: Kind, arrays: Mapping[str, FloatArray], width: int, learned: int
) -> dict[str, tuple[int, ...]]:
    def rows(name: str) -> int:
        return arrays[name].shape[0] if name in arrays and arrays[name].ndim else 0

    if kind is Kind.LOGISTIC:
        return {"weights": (learned, width), "biases": (learned,)}
    if kind is Kind.MLP:
        hidden = rows("hidden_biases")
        return {
            "hidden_weights": (hidden, width),
            "hidden_biases": (hidden,),
            "weights": (learned, hidden),
            "biases": (learned,),
        }
    if kind is Kind.NEIGHBOURS:
        references = rows("references")
        return {"references": (references, width), "votes": (references, learned)}
    if kind is Kind.CLUSTERS:
        return {"table": (rows("table"), learned)}
    raise CheckpointInvalid("A head that answers the same for everything has no arrays.")
