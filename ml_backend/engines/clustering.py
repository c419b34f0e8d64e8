"""k-means on embeddings, with cluster identities that outlive refits.

Serving (`assign`, `name_clusters`) is numpy only; scikit-learn is imported where it fits. The same
embeddings and seed give the same bits, however many cores there are, because the fit runs on one
thread: the order in which several add up their sums is not fixed.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Progress = Callable[[float], None]

MINI_BATCH_ABOVE: Final = 20_000  # items; beyond it every look at all of them costs too much
RUNS: Final = 10  # from different starts; the tightest clusters win
MINI_BATCH_RUNS: Final = 3
MINI_BATCH: Final = 4096  # items
MOST_ITERATIONS: Final = 300
SMALLEST_OVERLAP: Final = 0.25  # Jaccard; a cluster that shares less with an old one is a new one

FEWEST_CLUSTERS: Final = 2
MOST_CLUSTERS: Final = 64  # more, and nobody looks at their contact sheets
CLUSTERS_PER_CLASS: Final = 2

SMALLEST_SUPPORT: Final = 2  # labelled items; one alone may be the odd one of its cluster
SMALLEST_PURITY: Final = 0.6  # share of the labelled items; safely more than half

_CHUNK: Final = 2048  # items whose distances are worked out at once
NO_CLUSTER: Final = -1


@dataclass(frozen=True, kw_only=True)
class Clustering:
    """Clusters of embeddings."""

    centres: FloatArray  # (K, D), in the space that the embeddings were scaled to
    identities: IntArray  # (K,) numbers that people see, rising; stay through refits
    next_identity: int  # no cluster ever had this number or a higher one

    def __len__(self) -> int:
        """Return the number of clusters."""
        return len(self.identities)


@dataclass(frozen=True, kw_only=True)
class ClusterName:
    """What the annotations in a cluster say that it holds."""

    choices: tuple[str, ...]  # empty: too few labels, or they disagree; several only for multiple
    support: int  # labelled items in the cluster
    purity: float  # share of them that say so, 0..1; for multiple of the most disputed choice
    counts: Mapping[str, int]  # labelled items by choice

    @property
    def choice(self) -> str | None:
        """Return the choice of a cluster that has exactly one."""
        return self.choices[0] if len(self.choices) == 1 else None


def choose_k(labels: Sequence[frozenset[str]], *, items: int) -> int:
    """Return a number of clusters for a project whose user named none.

    With labels: two clusters per class, because classes have kinds (a diatom chain lies or stands)
    and a cluster that mixes two classes can be given no choice, while two clusters may well share
    one. Without: sqrt(items / 2), Mardia et al. 1979, "Multivariate Analysis", p. 365. Bounded by
    2, 64 and the number of items.

    Args:
        labels: the choices of each labelled item.
        items: how many are clustered, labelled or not.
    """
    classes = len(frozenset().union(*labels))
    wanted = CLUSTERS_PER_CLASS * classes if classes else round(math.sqrt(items / 2))
    return max(1, min(max(wanted, FEWEST_CLUSTERS), MOST_CLUSTERS, items))


def fit_clusters(
    embeddings: FloatArray,
    *,
    k: int,
    seed: int,
    previous: Clustering | None = None,
    previous_identities: IntArray | None = None,
    on_progress: Progress | None = None,
) -> Clustering:
    """Return k-means clusters: Lloyd's algorithm from k-means++ starts, or MiniBatch for many.

    A new cluster takes over the identity of the old one with which it shares its items, matched
    one to one so that the shared proportions (Jaccard) are largest in total: Kuhn 1955, and Lange
    et al. 2004, "Stability-Based Validation of Clustering Solutions", for matching by items. That
    needs no distance to compare with, and survives a new scaling or another embedder. A cluster
    without a partner gets a number that none had before.

    Args:
        embeddings: (N, D) float32, scaled, finite.
        k: clusters wanted; there are never more than distinct embeddings, and none is empty.
        seed: of the starts.
        previous: whose identities are kept.
        previous_identities: (N,) the cluster each item was in before, `NO_CLUSTER` for a new item;
            by default worked out from the centres of `previous`, which must then lie in the same
            space.
        on_progress: called with the share done, 0..1; what it raises ends the fit.

    Raises:
        ValueError: an embedding is not finite, or k is not positive.
    """
    if k < 1:
        raise ValueError("there is at least one cluster")
    points = np.ascontiguousarray(embeddings, np.float32)
    if not np.isfinite(points).all():
        raise ValueError("embeddings must be finite")
    first_free = previous.next_identity if previous is not None else 0
    k = min(k, _distinct(points, at_most=k))
    if k == 0:
        nothing = np.zeros(0, np.int64)
        empty = np.zeros((0, points.shape[1]), np.float32)
        return Clustering(centres=empty, identities=nothing, next_identity=first_free)
    centres = _k_means(points, k, seed, on_progress or _ignore)
    unnamed = Clustering(
        centres=centres, identities=np.arange(len(centres)), next_identity=len(centres)
    )
    cluster_of, _ = assign(points, unnamed)
    sizes = np.bincount(cluster_of, minlength=len(centres))
    # largest first, so that a first fit numbers its clusters as people would; equal sizes stay in
    # the order of the fit
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] > 0]
    rank = np.full(len(centres), NO_CLUSTER)
    rank[order] = np.arange(len(order))
    if previous_identities is None:
        previous_identities = _identities_before(points, previous)
    identities, next_identity = _matched(
        rank[cluster_of], len(order), previous_identities, first_free
    )
    by_identity = np.argsort(identities)
    return Clustering(
        centres=np.ascontiguousarray(centres[order][by_identity]),
        identities=identities[by_identity],
        next_identity=next_identity,
    )


def assign(
    embeddings: FloatArray, clustering: Clustering
) -> tuple[IntArray, npt.NDArray[np.float32]]:
    """Return which centre is nearest to each embedding, and how far it is.

    Args:
        embeddings: (N, D) float32, scaled as the clustering's were.
        clustering: may be empty.

    Returns:
        (N,) rows of `clustering.centres`, of two equally near ones the first, `NO_CLUSTER` where
        there is none; and (N,) Euclidean distances, infinite where there is none.
    """
    count = len(embeddings)
    nearest = np.full(count, NO_CLUSTER)
    distances = np.full(count, np.inf, np.float32)
    if len(clustering) == 0:
        return nearest, distances
    centres = clustering.centres.astype(np.float64)
    squared = np.einsum("kd,kd->k", centres, centres)
    for start in range(0, count, _CHUNK):
        some = embeddings[start : start + _CHUNK].astype(np.float64)
        chosen = np.argmin(squared - 2 * (some @ centres.T), axis=1)
        nearest[start : start + _CHUNK] = chosen
        # from the difference itself: the expanded square loses small distances to rounding
        distances[start : start + _CHUNK] = np.linalg.norm(some - centres[chosen], axis=1)
    return nearest, distances


def name_clusters(
    assigned: IntArray, choices: Sequence[frozenset[str]], *, multiple: bool
) -> dict[int, ClusterName]:
    """Return by identity what each cluster with a labelled item holds.

    A single choice needs `SMALLEST_SUPPORT` labelled items of which `SMALLEST_PURITY` agree. For a
    multiple one every choice is decided by its own majority under the same thresholds; a cluster
    whose items agree on having none of them has no choices either.

    Args:
        assigned: (N,) identities; `NO_CLUSTER` is left out.
        choices: of each item. Where `multiple`, an empty set says that it has none of them; else
            it says nothing, and so do several.
        multiple: whether an item can have several.
    """
    found: dict[int, list[frozenset[str]]] = {}
    for identity, label in zip(assigned.tolist(), choices, strict=True):
        if identity != NO_CLUSTER and (multiple or len(label) == 1):
            found.setdefault(identity, []).append(label)
    name = _name_multiple if multiple else _name_single
    return {identity: name(found[identity]) for identity in sorted(found)}


def _name_single(labels: list[frozenset[str]]) -> ClusterName:
    counts = Counter(choice for label in labels for choice in sorted(label))
    ranked = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    best, most = ranked[0]
    tied = len(ranked) > 1 and ranked[1][1] == most
    purity = most / len(labels)
    named = not tied and is_agreed(len(labels), purity)
    return ClusterName(
        choices=(best,) if named else (),
        support=len(labels),
        purity=purity,
        counts=dict(ranked),
    )


def _name_multiple(labels: list[frozenset[str]]) -> ClusterName:
    support = len(labels)
    counts = Counter(choice for label in labels for choice in label)
    ranked = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return ClusterName(
        choices=tuple(choice for choice, count in ranked if is_agreed(support, count / support)),
        support=support,
        purity=min((max(count, support - count) / support for _, count in ranked), default=1.0),
        counts=dict(ranked),
    )


def is_agreed(support: int, purity: float) -> bool:
    """Return whether that many labelled items, that share of which agree, give a choice."""
    return support >= SMALLEST_SUPPORT and purity >= SMALLEST_PURITY and purity > 0.5


def _distinct(points: FloatArray, *, at_most: int) -> int:
    seen: set[bytes] = set()
    for row in points + np.float32(0):  # makes -0 equal to 0
        seen.add(row.tobytes())
        if len(seen) >= at_most:
            break
    return len(seen)


def _k_means(points: FloatArray, k: int, seed: int, on_progress: Progress) -> FloatArray:
    from sklearn.cluster import KMeans, MiniBatchKMeans  # takes a second; serving needs none
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    many = len(points) > MINI_BATCH_ABOVE
    runs = MINI_BATCH_RUNS if many else RUNS
    tightest = math.inf
    centres: FloatArray = points[:0]
    on_progress(0.0)
    with threadpool_limits(limits=1), warnings.catch_warnings():
        # the few embeddings that differ only by rounding count as one point in there
        warnings.simplefilter("ignore", ConvergenceWarning)
        for run in range(runs):
            start = seed + run
            fit = (
                MiniBatchKMeans(k, batch_size=MINI_BATCH, n_init=3, random_state=start)
                if many
                else KMeans(k, n_init=1, max_iter=MOST_ITERATIONS, random_state=start)
            ).fit(points)
            if fit.inertia_ < tightest:
                tightest = fit.inertia_
                centres = np.asarray(fit.cluster_centers_, np.float32)
            on_progress((run + 1) / runs)
    return centres


def _identities_before(points: FloatArray, previous: Clustering | None) -> IntArray:
    comparable = previous is not None and previous.centres.shape[1] == points.shape[1]
    if previous is None or not comparable or len(previous) == 0:
        return np.full(len(points), NO_CLUSTER)
    return previous.identities[assign(points, previous)[0]]


def _matched(
    cluster_of: IntArray, clusters: int, before: IntArray, first_free: int
) -> tuple[IntArray, int]:
    """Return the identities of clusters 0..K-1, and the next free one."""
    from scipy.optimize import linear_sum_assignment

    identities = np.full(clusters, NO_CLUSTER)
    old = np.unique(before[before != NO_CLUSTER])
    if len(old):
        known = before != NO_CLUSTER
        column = np.searchsorted(old, before[known])
        shared = np.zeros((clusters, len(old)))
        np.add.at(shared, (cluster_of[known], column), 1)
        either = shared.sum(1, keepdims=True) + shared.sum(0, keepdims=True) - shared
        overlap = shared / either.clip(1)
        for new, partner in zip(*linear_sum_assignment(overlap, maximize=True), strict=True):
            if overlap[new, partner] >= SMALLEST_OVERLAP:
                identities[new] = old[partner]
    first_free = max(first_free, int(old.max()) + 1) if len(old) else first_free
    fresh = identities == NO_CLUSTER
    identities[fresh] = first_free + np.arange(np.count_nonzero(fresh))
    return identities, first_free + int(np.count_nonzero(fresh))


def _ignore(_share: float) -> None:
    return None
