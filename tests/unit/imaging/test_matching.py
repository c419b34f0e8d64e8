"""Matching against the tiny cases and against Cellpose's own average precision."""

from __future__ import annotations

import numpy as np
import pytest
from cellpose import metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ml_backend.imaging.matching import AllowedLabels, match_instances
from tests.cases.matching import CASES, Case, parse

THRESHOLDS = (0.3, 0.5, 0.75, 0.9)

label_images = hnp.arrays(np.int32, (7, 9), elements=st.integers(0, 5))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_case_is_matched_as_it_is_drawn(case: Case) -> None:
    (matching,) = match_instances(*case.images, thresholds=[0.5])

    assert case.pairs == tuple((one.truth_id, one.predicted_id) for one in matching.matches)
    assert case.iou == pytest.approx(tuple(one.iou for one in matching.matches))
    assert case.missed == matching.missed
    assert case.spurious == matching.spurious


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_swapping_the_images_swaps_missed_and_spurious(case: Case) -> None:
    truth, predicted = case.images

    (matching,) = match_instances(predicted, truth, thresholds=[0.5])

    assert matching.true_positives == len(case.pairs)
    assert matching.false_positives == len(case.missed)
    assert matching.false_negatives == len(case.spurious)


@settings(max_examples=50, deadline=None)
@given(truth=label_images, predicted=label_images)
def test_counts_and_average_precision_equal_cellposes(
    truth: np.ndarray, predicted: np.ndarray
) -> None:
    truth[0, 0] = predicted[0, 0] = 0  # Cellpose takes a background for granted
    found = match_instances(truth, predicted, thresholds=THRESHOLDS)

    with np.errstate(all="ignore"):
        precision, hits, extra, lost = metrics.average_precision(truth, predicted, list(THRESHOLDS))

    assert hits.tolist() == [one.true_positives for one in found]
    assert extra.tolist() == [one.false_positives for one in found]
    assert lost.tolist() == [one.false_negatives for one in found]
    for ours, theirs in zip(found, precision, strict=True):
        assert np.isnan(theirs) or ours.average_precision == pytest.approx(float(theirs))


def test_many_overlapping_discs_equal_cellposes() -> None:
    random = np.random.default_rng(3)
    yy, xx = np.mgrid[:300, :300]
    truth, predicted = np.zeros((2, 300, 300), np.int32)
    for number in range(1, 120):
        y, x, radius = [*random.uniform(0, 300, 2).tolist(), random.uniform(6, 14)]
        truth[(yy - y) ** 2 + (xx - x) ** 2 < radius**2] = number
        y, x, radius = (np.array([y, x, radius]) + random.normal(0, 2, 3)).tolist()
        predicted[(yy - y) ** 2 + (xx - x) ** 2 < radius**2] = number * 7

    found = match_instances(truth, predicted, thresholds=THRESHOLDS)

    with np.errstate(all="ignore"):
        precision, *_ = metrics.average_precision(truth, predicted, list(THRESHOLDS))
    assert [one.average_precision for one in found] == pytest.approx(precision.tolist())
    assert 0 < found[1].average_precision < 1


@pytest.mark.parametrize(("threshold", "hits"), [(0.6, 1), (0.6 + 1e-9, 0)])
def test_an_iou_equal_to_the_threshold_is_a_match(threshold: float, hits: int) -> None:
    (case,) = [case for case in CASES if case.name == "shifted by one"]

    (matching,) = match_instances(*case.images, thresholds=[threshold])

    assert hits == matching.true_positives


def test_the_scores_of_a_matching() -> None:
    truth, predicted = parse("11.22.33 11.22.33"), parse("11.2..44 11.2..44")
    predicted[:, 6:] = 0
    predicted[0, 4] = 5

    (matching,) = match_instances(truth, predicted, thresholds=[0.5])

    assert (matching.true_positives, matching.false_positives, matching.false_negatives) == (
        2,
        1,
        1,
    )
    assert matching.average_precision == pytest.approx(2 / 4)
    assert matching.f1 == pytest.approx(4 / 6)
    assert matching.precision == pytest.approx(2 / 3)
    assert matching.recall == pytest.approx(2 / 3)
    assert matching.segmentation_quality == pytest.approx((1 + 0.5) / 2)
    assert matching.panoptic_quality == pytest.approx(4 / 6 * 0.75)


def test_nothing_to_find_and_nothing_found_is_perfect() -> None:
    empty = np.zeros((4, 4), np.int32)

    (matching,) = match_instances(empty, empty, thresholds=[0.5])

    assert matching.average_precision == matching.f1 == matching.panoptic_quality == 1.0


def test_labels_that_may_not_match_do_not() -> None:
    truth, predicted = parse("11.22.33 11.22.33"), parse("11.22.33 11.22.33")
    allowed = AllowedLabels(
        truth={1: "nucleus", 2: "nucleus", 3: "debris"},
        predicted={1: "nucleus", 2: "cell", 3: "cell"},
        pairs={("nucleus", "nucleus"), ("debris", "cell")},
    )

    (matching,) = match_instances(truth, predicted, thresholds=[0.5], allowed=allowed)

    assert [one.truth_id for one in matching.matches] == [1, 3]
    assert matching.missed == matching.spurious == (2,)


def test_a_worse_overlap_with_an_allowed_label_is_taken() -> None:
    truth, predicted = parse("11111."), parse("11122.")
    allowed = AllowedLabels(truth={1: "a"}, predicted={1: "b", 2: "a"}, pairs={("a", "a")})

    (matching,) = match_instances(truth, predicted, thresholds=[0.3], allowed=allowed)

    assert [one.predicted_id for one in matching.matches] == [2]


def test_an_instance_without_a_label_matches_nothing() -> None:
    allowed = AllowedLabels(truth={}, predicted={1: "a"}, pairs={("a", "a")})

    (matching,) = match_instances(parse("11."), parse("11."), thresholds=[0.5], allowed=allowed)

    assert matching.true_positives == 0


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int64])
def test_any_integer_type_will_do(kind: type) -> None:
    truth, predicted = parse("11.22 11.22").astype(kind), parse("11.22 11.22")

    (matching,) = match_instances(truth, predicted, thresholds=[0.9])

    assert matching.true_positives == 2


def test_shapes_must_be_equal() -> None:
    with pytest.raises(ValueError, match="shape"):
        match_instances(np.zeros((2, 2), int), np.zeros((2, 3), int))


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.1])
def test_a_threshold_is_a_share(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        match_instances(np.zeros((2, 2), int), np.zeros((2, 2), int), thresholds=[threshold])
