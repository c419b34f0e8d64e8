from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_backend.domain import LabelImage
from ml_backend.geometry.patches import Patch
from ml_backend.labelstudio.merging import merge_instances, split_merged, split_parts
from tests.label_images import SETS, blobs, discs, draw_cells, ious, noise, real_masks
from tests.shared_data import SHARED, needs_data


@given(labels=blobs())
@settings(max_examples=50, deadline=None)
def test_as_many_cells_come_back_from_a_merged_mask(labels: LabelImage) -> None:
    found = split_merged(merge_instances(labels))

    assert found.max(initial=0) == labels.max(initial=0)


@given(seed=st.integers(0, 2**32 - 1), radius=st.floats(5, 15))
@settings(max_examples=15, deadline=None)
def test_cells_keep_their_shape_in_a_merged_mask(seed: int, radius: float) -> None:
    labels = draw_cells(seed=seed, count=60, height=150, width=200, radius=radius)

    found = split_merged(merge_instances(labels))

    assert found.max(initial=0) == labels.max(initial=0)
    assert np.median(ious(labels, found)) >= 0.98


@given(labels=noise())
@settings(max_examples=50, deadline=None)
def test_no_two_instances_touch_side_by_side_in_a_merged_mask(labels: LabelImage) -> None:
    mask = merge_instances(labels)

    shown = np.where(mask, labels, 0)
    for here, there in ((shown[:, 1:], shown[:, :-1]), (shown[1:], shown[:-1])):
        assert not ((here != there) & (here > 0) & (there > 0)).any()
    assert not mask[labels == 0].any()


@given(labels=noise())
@settings(max_examples=50, deadline=None)
def test_each_instance_has_at_most_one_part_in_a_merged_mask(labels: LabelImage) -> None:
    mask = merge_instances(labels)

    parts = split_merged(mask).max(initial=0)
    assert parts <= len(np.unique(labels[labels > 0]))


def test_the_larger_neighbour_gives_way_and_gets_its_pixels_back() -> None:
    labels = np.zeros((10, 20), dtype=np.int32)
    labels[:, :14] = 1
    labels[:, 14:] = 2

    mask = merge_instances(labels)

    assert mask[:, 14:].all()
    assert not mask[:, 13].any()
    assert np.array_equal(labels, split_merged(mask))


def test_a_thin_cell_between_small_ones_does_not_vanish() -> None:
    labels = np.zeros((9, 60), dtype=np.int32)
    labels[4] = 1  # one pixel high, larger than each of those above and below
    for index, x in enumerate(range(0, 60, 6)):
        labels[:4, x : x + 6] = 2 + 2 * index
        labels[5:, x : x + 6] = 3 + 2 * index
    labels[:, 30:36][labels[:, 30:36] != 1] = 0

    mask = merge_instances(labels)

    assert (mask & (labels == 1)).any()
    assert split_merged(mask).max() == len(np.unique(labels)) - 1


def test_a_cell_with_a_waist_stays_in_one_piece() -> None:
    labels = np.zeros((21, 41), dtype=np.int32)
    labels[:, :18] = labels[:, 23:] = 1
    labels[9:12, 18:23] = 1
    labels[:9, 18:23] = 2
    labels[12:, 18:23] = 3
    labels[10, 18:23] = 1

    mask = merge_instances(labels)

    assert split_merged(mask).max() == 3


def test_fragments_below_the_minimum_size_are_dropped() -> None:
    mask = np.zeros((20, 20), dtype=np.bool_)
    mask[2:8, 2:8] = True
    mask[15, 15] = True

    assert split_merged(mask, min_size=2).max() == 1
    assert split_merged(mask).max() == 2


def test_cells_apart_do_not_grow() -> None:
    labels = discs(9, diameter=7, height=60, width=60)

    assert np.array_equal(labels, split_merged(merge_instances(labels)))


def test_parts_lie_where_the_patch_lies_and_the_last_one_is_never_dropped() -> None:
    mask = np.zeros((9, 12), dtype=np.bool_)
    mask[1:4, 1:4] = mask[1:4, 5:9] = True

    left, right = split_parts(Patch(y=100, x=200, mask=mask), min_size=8)
    (kept,) = split_parts(Patch(y=100, x=200, mask=mask), min_size=100)

    assert (left.y, left.x, right.y, right.x) == (101, 201, 101, 204)
    assert left.mask.sum() + right.mask.sum() == 24  # the gap went to the larger one
    assert kept.mask.sum() == 15


def test_nothing_gives_nothing() -> None:
    nothing = np.zeros((4, 5), dtype=np.int32)

    assert not merge_instances(nothing).any()
    assert not split_merged(nothing > 0).any()
    assert split_parts(Patch(y=0, x=0, mask=np.zeros((0, 0), dtype=np.bool_)), 1) == []


@needs_data
@pytest.mark.data
@pytest.mark.parametrize("name", [*SETS, "large"])
def test_real_cells_come_back_from_a_merged_mask(name: str) -> None:
    values = []
    for labels in real_masks(SHARED, name):
        found = split_merged(merge_instances(labels), min_size=3)

        assert found.max() == len(np.unique(labels)) - 1
        values.append(ious(labels, found))

    assert np.median(np.concatenate(values)) >= 0.98
