"""Flows as a picture: Cellpose's colours."""

from __future__ import annotations

import numpy as np
import pytest
from cellpose import plot

from ml_backend.formats.flow_picture import flow_picture


def flows(height: int, width: int) -> np.ndarray:
    """Return flows that point everywhere, strong and weak."""
    random = np.random.default_rng(7)
    return random.normal(0, 2, (2, height, width)).astype(np.float32)


@pytest.mark.parametrize("shape", [(5, 7), (300, 200), (1, 1000)])
def test_the_colours_are_those_of_cellpose(shape: tuple[int, int]) -> None:
    xy = flows(*shape)

    ours, theirs = flow_picture(xy), plot.dx_to_circ(xy.copy())

    assert ours.shape == (*shape, 3)
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


@pytest.mark.unhurried
def test_a_large_image_has_the_colours_of_cellpose_too() -> None:
    xy = flows(3400, 3400)  # beyond what Cellpose takes percentiles of as a whole

    ours, theirs = flow_picture(xy), plot.dx_to_circ(xy.copy())

    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


@pytest.mark.parametrize("shape", [(0, 0), (4, 4)])
def test_no_flow_is_black(shape: tuple[int, int]) -> None:
    picture = flow_picture(np.zeros((2, *shape), np.float32))

    assert picture.shape == (*shape, 3)
    assert not picture.any()
