"""Dealing labelled items out to the folds of a cross-validation. Numpy only."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def strata_of(targets: BoolArray) -> IntArray:
    """Return the rarest class (N,) that each item of `targets: (N, C)` has, C for none.

    Dealing by the rarest spreads the labels of multiple choices nearly evenly; the idea is of
    Sechidis et al. 2011, "On the Stratification of Multi-label Data".
    """
    counts = targets.sum(axis=0)
    by_rarity = np.argsort(counts, kind="stable")
    first = np.argmax(targets[:, by_rarity], axis=1)
    return np.where(targets.any(axis=1), by_rarity[first], targets.shape[1])


def group_numbers(groups: Sequence[Hashable]) -> IntArray:
    """Return a number (N,) for each item, equal where the groups are, in order of appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], np.int64)


def deal_folds(strata: IntArray, groups: IntArray, count: int, seed: int) -> IntArray:
    """Return the fold (N,) of each item, 0..count-1; fewer folds where there are fewer groups.

    Rare strata are dealt first, each group of a stratum to the fold that has fewest of it, then to
    that with fewest items.

    Args:
        strata: (N,) spread evenly over the folds.
        groups: (N,) never torn apart; one belongs to the stratum of its first item.
        count: how many folds, at least 1.
        seed: of the order within a stratum.
    """
    names, first, of_item, sizes = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    count = max(1, min(count, len(names)))
    order = np.random.default_rng(seed).permutation(len(names))
    stratum_of = strata[first]
    values, inverse, occurrences = np.unique(stratum_of, return_inverse=True, return_counts=True)
    order = order[np.argsort(occurrences[inverse[order]], kind="stable")]
    of_stratum = {value: np.zeros(count, np.int64) for value in values.tolist()}
    totals = np.zeros(count, np.int64)
    fold_of = np.zeros(len(names), np.int64)
    for group in order.tolist():
        dealt = of_stratum[int(stratum_of[group])]
        fold = int(np.lexsort((totals, dealt))[0])
        fold_of[group] = fold
        dealt[fold] += sizes[group]
        totals[fold] += sizes[group]
    return fold_of[of_item]


def largest_strata_sample(strata: IntArray, most: int, seed: int) -> IntArray:
    """Return at most so many items, rising, each stratum in proportion but none left out.

    Args:
        strata: (N,).
        most: all items are returned where there are no more.
        seed: of the choice.
    """
    if len(strata) <= most:
        return np.arange(len(strata))
    order = np.random.default_rng(seed).permutation(len(strata))
    place = np.empty(len(strata))
    for value in np.unique(strata):
        members = order[strata[order] == value]
        place[members] = np.arange(len(members)) / len(members)
    # everybody's first has place 0, so that the rarest stratum keeps one
    return np.sort(np.argsort(place, kind="stable")[:most])
