"""Clusters are the same again, keep their identities, and are named only where labels agree."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from ml_backend.engines import clustering as clustering_module
from ml_backend.engines.clustering import (
    NO_CLUSTER,
    SMALLEST_PURITY,
    SMALLEST_SUPPORT,
    Clustering,
    ClusterName,
    assign,
    choose_k,
    fit_clusters,
    name_clusters,
)

pytestmark = pytest.mark.unhurried

Points = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]


def blobs(
    centres: list[tuple[float, float]], each: int = 30, seed: int = 0
) -> tuple[Points, Numbers]:
    """Return points around centres, and the number of each point's centre."""
    random = np.random.default_rng(seed)
    of = np.repeat(np.arange(len(centres)), each)
    points = np.array(centres)[of] + random.normal(0, 0.3, (len(of), 2))
    return points.astype(np.float32), of


SQUARE = [(0.0, 0.0), (10.0, 0.0), (0.0, 10.0), (10.0, 10.0)]


def identities(points: Points, clusters: Clustering) -> Numbers:
    """Return the identity of each point's cluster."""
    return clusters.identities[assign(points, clusters)[0]]


def test_clusters_are_found_and_numbered_from_the_largest() -> None:
    points, of = blobs(SQUARE)
    points, of = points[:-20], of[:-20]  # the last one is the smallest

    found = fit_clusters(points, k=4, seed=0)

    numbers = identities(points, found)
    assert adjusted_rand_score(of, numbers) == 1
    assert found.identities.tolist() == [0, 1, 2, 3]
    assert found.next_identity == 4
    assert set(numbers[of == 3]) == {3}
    assert found.centres.dtype == np.float32


def test_clusters_are_as_tight_as_those_of_scikit_learn() -> None:
    points = np.random.default_rng(3).normal(size=(500, 8)).astype(np.float32)

    found = fit_clusters(points, k=6, seed=0)

    tightest = KMeans(6, n_init=10, random_state=0).fit(points).inertia_
    assert (assign(points, found)[1] ** 2).sum() <= tightest * 1.02


FIT = """
import hashlib, numpy as np
from ml_backend.engines.clustering import fit_clusters
points = np.random.default_rng(0).normal(size=(3000, 40)).astype(np.float32)
print(hashlib.sha256(fit_clusters(points, k=15, seed=1).centres.tobytes()).hexdigest())
"""


def test_the_same_points_and_seed_give_the_same_bits_with_any_number_of_threads() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", FIT],
            env=os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for threads in ("1", "2")
    }

    assert len(found) == 1
    assert found.pop().strip()


def test_another_seed_may_give_other_clusters() -> None:
    points = np.random.default_rng(0).normal(size=(300, 10)).astype(np.float32)

    one, other = (fit_clusters(points, k=20, seed=seed) for seed in (0, 1000))

    assert not np.array_equal(one.centres, other.centres)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(0, 30), st.integers(0, 5))
def test_no_cluster_is_empty_and_there_are_at_most_as_many_as_distinct_points(
    k: int, count: int, seed: int
) -> None:
    points = np.random.default_rng(seed).integers(0, 2, (count, 3)).astype(np.float32)

    found = fit_clusters(points, k=k, seed=0)

    rows, distances = assign(points, found)
    assert len(found) == min(k, len(np.unique(points, axis=0)))
    assert set(rows.tolist()) == set(range(len(found)))
    assert np.isfinite(distances).all()


def test_points_that_are_all_the_same_are_one_cluster() -> None:
    found = fit_clusters(np.ones((10, 4), np.float32), k=5, seed=0)

    assert len(found) == 1
    assert assign(np.ones((1, 4), np.float32), found)[1].tolist() == [0]


def test_no_points_are_no_clusters() -> None:
    none = fit_clusters(np.zeros((0, 4), np.float32), k=5, seed=0)

    rows, distances = assign(np.ones((2, 4), np.float32), none)
    assert len(none) == 0
    assert rows.tolist() == [NO_CLUSTER, NO_CLUSTER]
    assert np.isinf(distances).all()


def test_points_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        fit_clusters(np.full((3, 2), np.nan, np.float32), k=2, seed=0)


def test_many_points_are_fitted_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering_module, "MINI_BATCH_ABOVE", 100)
    points, of = blobs(SQUARE, each=200)

    one, other = (fit_clusters(points, k=4, seed=0) for _ in range(2))

    assert adjusted_rand_score(of, identities(points, one)) == 1
    assert np.array_equal(one.centres, other.centres)


def test_progress_rises_to_one_and_what_it_raises_ends_the_fit() -> None:
    points, _ = blobs(SQUARE)
    told: list[float] = []
    fit_clusters(points, k=4, seed=0, on_progress=told.append)

    assert told == sorted(told)
    assert told[-1] == 1

    def stop(share: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        fit_clusters(points, k=4, seed=0, on_progress=stop)


def test_identities_stay_when_points_are_added_and_come_in_another_order() -> None:
    points, of = blobs(SQUARE)
    before = fit_clusters(points, k=4, seed=0)
    more, more_of = blobs(SQUARE, each=45, seed=1)
    order = np.random.default_rng(0).permutation(len(more))

    after = fit_clusters(more[order], k=4, seed=9, previous=before)

    numbers = dict(zip(of.tolist(), identities(points, before).tolist(), strict=True))
    expected = [numbers[number] for number in more_of[order].tolist()]
    assert identities(more[order], after).tolist() == expected
    assert after.next_identity == 4
    assert after.identities.tolist() == sorted(after.identities.tolist())


def test_a_new_cluster_gets_a_number_that_none_had_before() -> None:
    first, of = blobs(SQUARE)
    four = fit_clusters(first, k=4, seed=0)
    three = fit_clusters(first[of != 3], k=3, seed=0, previous=four)
    with_another, of_another = blobs([*SQUARE[:3], (30.0, 30.0)])

    four_again = fit_clusters(with_another, k=4, seed=0, previous=three)

    assert len(three) == 3
    assert three.next_identity == 4
    assert set(three.identities.tolist()) < set(four_again.identities.tolist())
    assert set(identities(with_another, four_again)[of_another == 3].tolist()) == {4}
    assert four_again.next_identity == 5


def test_a_cluster_that_splits_gives_its_number_to_the_larger_part() -> None:
    two, of = blobs([(0.0, 0.0), (0.0, 3.0), (50.0, 0.0)])
    two, of = two[10:], of[10:]  # the first of them is the smaller
    before = fit_clusters(two, k=2, seed=0)
    number = int(identities(two, before)[of == 0][0])

    after = fit_clusters(two, k=3, seed=0, previous=before)

    assert set(identities(two, after)[of == 1].tolist()) == {number}
    assert set(identities(two, after)[of == 0].tolist()) == {2}


def test_identities_survive_another_space_when_it_is_said_who_was_where() -> None:
    points, _ = blobs(SQUARE)
    before = fit_clusters(points, k=4, seed=0)
    numbers = identities(points, before)
    elsewhere = np.hstack([points * -3, points])

    told = fit_clusters(elsewhere, k=4, seed=1, previous=before, previous_identities=numbers)
    not_told = fit_clusters(elsewhere, k=4, seed=1, previous=before)

    assert identities(elsewhere, told).tolist() == numbers.tolist()
    assert not_told.identities.tolist() == [4, 5, 6, 7]


def test_the_nearest_centre_is_exact_far_from_the_origin() -> None:
    centres = np.array([[1e4, 0], [1e4 + 0.25, 0]], np.float32)
    clusters = Clustering(centres=centres, identities=np.arange(2), next_identity=2)

    rows, distances = assign(np.array([[1e4 + 0.2, 0], [1e4, 0]], np.float32), clusters)

    assert rows.tolist() == [1, 0]
    assert distances[1] == 0


def labels(*choices: str) -> list[frozenset[str]]:
    """Return one label per word; choices of one item are joined by a plus."""
    return [frozenset(choice.split("+")) - {""} for choice in choices]


def name(*choices: str, multiple: bool = False) -> ClusterName:
    """Return the name of a cluster with these labels."""
    return name_clusters(np.zeros(len(choices), int), labels(*choices), multiple=multiple)[0]


def test_a_majority_gives_the_choice() -> None:
    found = name("Egg, round", "Egg, round", "a/b")

    assert found.choice == "Egg, round"
    assert found.choices == ("Egg, round",)
    assert (found.support, found.purity) == (3, pytest.approx(2 / 3))
    assert dict(found.counts) == {"Egg, round": 2, "a/b": 1}


@pytest.mark.parametrize(
    "choices",
    [
        ["a"],  # too few
        ["a", "b"],  # a tie
        ["a", "a", "b", "b"],
        ["a", "a", "b", "c"],  # half is no majority
        ["a"] * 5 + ["b"] * 2 + ["c"] * 2,  # 0.56: they disagree too much
    ],
)
def test_a_tie_or_too_little_support_gives_no_choice(choices: list[str]) -> None:
    found = name(*choices)

    assert found.choices == ()
    assert found.choice is None
    assert found.support == len(choices)


def test_clusters_without_labels_have_no_name() -> None:
    found = name_clusters(
        np.array([5, 5, NO_CLUSTER, 7]), labels("a", "a", "a", ""), multiple=False
    )

    assert list(found) == [5]
    assert found[5].support == 2


def test_each_value_of_a_multiple_choice_has_its_own_majority() -> None:
    found = name("eggs+cilia", "eggs", "eggs+cilia", "cilia", "eggs+flagella", multiple=True)

    assert found.choices == ("eggs", "cilia")
    assert found.choice is None
    assert found.purity == pytest.approx(3 / 5)


def test_a_cluster_whose_items_have_none_of_the_values_has_no_choices() -> None:
    found = name("", "", "", multiple=True)

    assert found.choices == ()
    assert (found.support, found.purity) == (3, 1.0)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=20))
def test_a_named_cluster_has_support_and_purity(choices: list[str]) -> None:
    found = name(*choices)

    if found.choice is not None:
        assert found.support >= SMALLEST_SUPPORT
        assert found.purity >= SMALLEST_PURITY
        assert choices.count(found.choice) > len(choices) / 2
    assert sum(found.counts.values()) == len(choices)


@pytest.mark.parametrize(
    ("classes", "items", "expected"),
    [(3, 1000, 6), (1, 1000, 2), (0, 200, 10), (0, 3, 2), (0, 10**6, 64), (50, 10**4, 64)],
)
def test_k_comes_from_the_labels_or_else_the_items(classes: int, items: int, expected: int) -> None:
    assert choose_k(labels(*map(str, range(classes))), items=items) == expected


@pytest.mark.parametrize("items", [0, 1, 2])
def test_k_is_at_least_one_and_not_more_than_the_items(items: int) -> None:
    assert choose_k(labels("a", "b"), items=items) == max(1, items)
