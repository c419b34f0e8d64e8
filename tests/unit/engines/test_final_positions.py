"""Where pixels end: the same whether an image is worked on as a whole or in blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from ml_backend.domain import BlockOfPositions
from ml_backend.engines.final_positions import final_positions
from ml_backend.engines.instances import InstanceOptions

OPTIONS = InstanceOptions(flow_threshold=0.4, cellprob_threshold=0.0, iterations=200, min_size=15)


def cells(edge: int, pitch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return flows to the middles of discs on a grid, and their cell probability."""
    y, x = np.indices((edge, edge)).astype(np.float32)
    to_y, to_x = pitch / 2 - y % pitch, pitch / 2 - x % pitch
    distance = np.hypot(to_y, to_x)
    flows = 5 * np.stack([to_y, to_x]) / np.maximum(distance, 1)
    probability = np.where(distance < 0.4 * pitch, 4.0, -4.0)
    return flows.astype(np.float32), probability.astype(np.float32)


def whole(blocks: Iterator[BlockOfPositions], shape: tuple[int, int]) -> np.ndarray:
    """Return (2, Y, X) where all pixels end; every pixel is in one block."""
    ends = np.full((2, *shape), -1, np.int32)
    for block in blocks:
        assert (ends[:, block.rows, block.columns] == -1).all()
        ends[:, block.rows, block.columns] = block.ends
    assert (ends >= 0).all()
    return ends


def test_cell_pixels_end_in_the_middle_and_others_where_they_are() -> None:
    flows, probability = cells(90, 30)

    ends = whole(final_positions(flows, probability, OPTIONS), (90, 90))

    inside = probability > 0
    here = np.indices((90, 90))
    middles = here // 30 * 30 + 15
    assert np.abs(ends - middles)[:, inside].max() <= 1
    assert np.array_equal(ends[:, ~inside], here[:, ~inside])


def test_blocks_give_what_the_whole_image_gives() -> None:
    flows, probability = cells(300, 30)
    at_once = whole(final_positions(flows, probability, OPTIONS), (300, 300))

    in_blocks = whole(
        final_positions(flows, probability, OPTIONS, diameter=24, block=70), (300, 300)
    )

    assert np.abs(in_blocks - at_once).max() <= 1  # whole pixels: a hair may change one


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (2, 2)])
def test_what_is_too_small_for_cells_stays_where_it_is(shape: tuple[int, int]) -> None:
    flows = np.ones((2, *shape), np.float32)

    ends = whole(final_positions(flows, np.ones(shape, np.float32), OPTIONS), shape)

    assert np.array_equal(ends, np.indices(shape))
