"""Label image -> the closed walks along the pixel edges around every instance and its holes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_backend.domain import LabelImage

# Side s of a pixel is walked clockwise: 0 top (rightwards), 1 right (downwards), 2 bottom
# (leftwards), 3 left (upwards). (y, x) of the neighbour ahead, of the one ahead and outwards, and
# of the corner where the side starts.
_OUTWARDS = ((-1, 0), (0, 1), (1, 0), (0, -1))
_AHEAD = ((0, 1), (1, 0), (0, -1), (-1, 0))
_START = ((0, 0), (0, 1), (1, 1), (1, 0))


@dataclass(frozen=True, kw_only=True)
class Cycles:
    """Closed walks along pixel sides, one after the other, the instance on the right hand.

    The outline of a 4-connected part is walked clockwise, the rim of a hole in it anticlockwise
    (as the picture is seen, y downwards).
    """

    start_yx: npt.NDArray[np.intp]  # (M, 2) corner where a side starts, pixels, image frame
    step_yx: npt.NDArray[np.intp]  # (M, 2) from there to its end: (0, 1), (1, 0), (0, -1), (-1, 0)
    bounds: npt.NDArray[np.intp]  # (K + 1,) cycle i has the sides bounds[i]:bounds[i + 1]
    owner: npt.NDArray[np.int32]  # (K,) the instance
    area: npt.NDArray[np.intp]  # (K,) what it encloses in pixels, negative for the rim of a hole
    pixel_yx: npt.NDArray[np.intp]  # (K, 2) a pixel of the instance beside the cycle


def trace_cycles(labels: LabelImage) -> Cycles:
    """Return the cycles of all instances of a (Y, X) label image, 0 = background.

    At a corner where two pixels of an instance touch only diagonally a cycle stays on its pixel, so
    that what is outlined is 4-connected.
    """
    padded = np.pad(labels, 1)
    sides, nodes, successor = _sides(padded)
    order, bounds = _walk(successor)
    sides, nodes = sides[order], nodes[order]
    pixels = np.stack(np.divmod(nodes, padded.shape[1]), axis=1) - 1
    start = pixels + np.asarray(_START)[sides]
    step = np.asarray(_AHEAD)[sides]
    first = bounds[:-1]
    return Cycles(
        start_yx=start,
        step_yx=step,
        bounds=bounds,
        owner=padded.ravel()[nodes[first]],
        area=enclosed_areas(start, step, bounds),
        pixel_yx=pixels[first],
    )


def _sides(
    padded: LabelImage,
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return side, pixel (flat, padded) and successor of every side between instances."""
    width = padded.shape[1]
    flat = padded.ravel()
    inner = padded[1:-1, 1:-1]
    pixels, kinds = [], []
    for side, (dy, dx) in enumerate(_OUTWARDS):
        height_, width_ = inner.shape
        outside = padded[1 + dy : 1 + dy + height_, 1 + dx : 1 + dx + width_]
        found = np.flatnonzero((inner != outside) & (inner != 0))
        y, x = np.divmod(found, width_)
        pixels.append((y + 1) * width + x + 1)
        kinds.append(np.full(len(found), side, dtype=np.int8))
    nodes, sides = np.concatenate(pixels), np.concatenate(kinds)

    shift = np.array([dy * width + dx for dy, dx in _AHEAD])[sides]
    ahead = nodes + shift
    outer = ahead + np.array([dy * width + dx for dy, dx in _OUTWARDS])[sides]
    own = flat[nodes]
    straight, inwards = flat[ahead] == own, flat[outer] == own
    next_node = np.where(straight, np.where(inwards, outer, ahead), nodes)
    turn = np.where(straight, np.where(inwards, -1, 0), 1)
    next_side = (sides + turn) % 4

    keys = nodes * 4 + sides
    order = np.argsort(keys)
    successor = order[np.searchsorted(keys, next_node * 4 + next_side, sorter=order)]
    return sides, nodes, successor


def _walk(successor: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the sides in the order they are walked, cycle after cycle, and the cycles' bounds."""
    following = successor.tolist()  # a list is four times faster than an array to walk
    seen = bytearray(len(following))
    walked: list[int] = []
    bounds = [0]
    for first in range(len(following)):
        if seen[first]:
            continue
        side = first
        while not seen[side]:
            seen[side] = 1
            walked.append(side)
            side = following[side]
        bounds.append(len(walked))
    return np.asarray(walked, dtype=np.intp), np.asarray(bounds, dtype=np.intp)


def enclosed_areas(
    start_yx: npt.NDArray[np.intp], step_yx: npt.NDArray[np.intp], bounds: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    """Return the area that each cycle encloses in pixels, negative for the rim of a hole."""
    if len(start_yx) == 0:
        return np.zeros(0, dtype=np.intp)
    contribution = start_yx[:, 1] * step_yx[:, 0]  # x dy: Green's theorem on unit steps
    areas: npt.NDArray[np.intp] = np.add.reduceat(contribution, bounds[:-1])
    return areas
