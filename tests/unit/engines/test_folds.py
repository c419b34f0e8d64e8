"""Folds keep groups together and spread classes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ml_backend.engines.folds import (
    deal_folds,
    group_numbers,
    largest_strata_sample,
    strata_of,
)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=1, max_size=60),
    st.integers(1, 6),
    st.integers(0, 3),
)
def test_a_group_is_never_torn_apart_and_no_fold_is_empty(
    items: list[tuple[int, int]], count: int, seed: int
) -> None:
    strata, groups = np.array(items).T

    folds = deal_folds(strata, groups, count, seed)

    for group in np.unique(groups):
        assert len(set(folds[groups == group].tolist())) == 1
    wanted = min(count, len(np.unique(groups)))
    assert set(folds.tolist()) == set(range(wanted))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 6))
def test_single_items_of_a_class_are_spread_evenly(classes: list[int], count: int) -> None:
    strata = np.array(classes)

    folds = deal_folds(strata, np.arange(len(strata)), count, 0)

    for value in np.unique(strata):
        of_fold = np.bincount(folds[strata == value], minlength=min(count, len(strata)))
        assert of_fold.max() - of_fold.min() <= 1


def test_an_item_of_several_classes_belongs_to_the_rarest() -> None:
    targets = np.array([[1, 0], [1, 0], [1, 1], [0, 0]], bool)

    assert strata_of(targets).tolist() == [0, 0, 1, 2]


def test_equal_groups_have_equal_numbers() -> None:
    assert group_numbers(["b", ("x", 1), "b"]).tolist() == [0, 1, 0]


@given(st.lists(st.integers(0, 3), min_size=4, max_size=80), st.integers(4, 30))
def test_a_sample_leaves_no_class_out_and_keeps_proportions(classes: list[int], most: int) -> None:
    strata = np.array(classes)

    chosen = largest_strata_sample(strata, most, seed=0)

    assert len(chosen) == min(most, len(strata))
    assert np.all(np.diff(chosen) > 0)
    assert set(strata[chosen].tolist()) == set(classes)
    share = len(chosen) / len(strata)
    for value in set(classes):
        assert abs(np.sum(strata[chosen] == value) - share * classes.count(value)) <= 4
