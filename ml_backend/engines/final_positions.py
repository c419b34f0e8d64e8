"""Where every pixel of an image ends when it follows the flows, block by block.

Blocks and their overlap are those of `instances`, so that memory does not grow with the image and
the ends are those that instances were made of.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ml_backend.domain import BlockOfPositions
from ml_backend.engines.instances import (
    BLOCK,
    SMALLEST_SIDE,
    WHOLE_IMAGE_PIXELS,
    Follow,
    InstanceOptions,
    follow_on_cpu,
    overlap_for,
)
from ml_backend.engines.normalisation import FloatArray


def final_positions(
    flows: FloatArray,
    cell_probability: FloatArray,
    options: InstanceOptions,
    *,
    diameter: float | None = None,
    follow: Follow = follow_on_cpu,
    block: int | None = None,
) -> Iterator[BlockOfPositions]:
    """Yield where the pixels of each block end; those that are no cell end where they are.

    Args:
        flows: (2, Y, X), Y and X flow, five times as long as a unit vector.
        cell_probability: (Y, X) logits.
        options: which pixels move, and for how many steps.
        diameter: of an object in pixels, if known; blocks overlap by twice as much.
        follow: moves pixels along flows, as `follow_on_cpu` does.
        block: pixels a side; None = as instances are found, so that small images are one.
    """
    height, width = cell_probability.shape
    if block is None:
        block = max(1, height, width) if height * width <= WHOLE_IMAGE_PIXELS else BLOCK
    margin = overlap_for(diameter)
    for top in range(0, height, block):
        for left in range(0, width, block):
            core_y = slice(top, min(height, top + block))
            core_x = slice(left, min(width, left + block))
            seen_y = slice(max(0, top - margin), min(height, top + block + margin))
            seen_x = slice(max(0, left - margin), min(width, left + block + margin))
            ends = _ends_in(
                np.ascontiguousarray(flows[:, seen_y, seen_x]),
                cell_probability[seen_y, seen_x] > options.cellprob_threshold,
                options.iterations,
                follow,
            )
            ends += np.array([[[seen_y.start]], [[seen_x.start]]], np.int32)
            inner_y = slice(core_y.start - seen_y.start, core_y.stop - seen_y.start)
            inner_x = slice(core_x.start - seen_x.start, core_x.stop - seen_x.start)
            yield BlockOfPositions(rows=core_y, columns=core_x, ends=ends[:, inner_y, inner_x])


def _ends_in(
    flows: FloatArray,
    inside: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    iterations: int,
    follow: Follow,
) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    ends = np.indices(inside.shape, dtype=np.int32)
    if min(inside.shape) >= SMALLEST_SIDE and inside.any():
        pixels, moved = follow(flows, inside, iterations)
        ends.reshape(2, -1)[:, pixels] = moved
    return ends
