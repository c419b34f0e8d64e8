"""Label image -> the outline of every instance along its pixel edges."""

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
class Outlines:
    """The outer outline of the largest 4-connected part of every instance, holes filled.

    The sides of all outlines lie one after the other, each outline clockwise.
    """

    start_yx: npt.NDArray[np.int32]  # (M, 2) corner where a side starts, pixels, image frame
    step_yx: npt.NDArray[np.int32]  # (M, 2) from there to its end: (0, 1), (1, 0), (0, -1), (-1, 0)
    bounds: npt.NDArray[np.intp]  # (N + 1,) outline i has the sides bounds[i]:bounds[i + 1]


def trace_outlines(labels: LabelImage, count: int) -> Outlines:
    """Return the outlines of instances 1..count; an instance without pixels has no sides.

    At a corner where two pixels of an instance touch only diagonally the outline stays on its
    pixel, so that it encloses a 4-connected part.
    """
    padded = np.pad(labels, 1)
    sides, nodes, successor = _sides(padded)
    cycles, cycle_bounds = _cycles(successor)
    sides, nodes = sides[cycles], nodes[cycles]
    y, x = np.divmod(nodes, padded.shape[1])
    start = np.stack([y, x], axis=1) - 1 + np.asarray(_START)[sides]
    step = np.asarray(_AHEAD)[sides]

    area = _enclosed(start, step, cycle_bounds)
    owner = padded.ravel()[nodes[cycle_bounds[:-1]]]
    chosen = _largest(owner, area, count)
    lengths = np.where(chosen >= 0, np.diff(cycle_bounds)[chosen], 0) if len(area) else chosen + 1
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    picked = np.repeat(np.append(cycle_bounds, 0)[chosen] - bounds[:-1], lengths)
    picked += np.arange(bounds[-1])
    return Outlines(
        start_yx=start[picked].astype(np.int32),
        step_yx=step[picked].astype(np.int32),
        bounds=bounds,
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


def _cycles(successor: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
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


def _enclosed(
    start: npt.NDArray[np.intp], step: npt.NDArray[np.intp], bounds: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    """Return the area that each cycle encloses in pixels, negative for the rim of a hole."""
    if len(start) == 0:
        return np.zeros(0, dtype=np.intp)
    contribution = start[:, 1] * step[:, 0]  # x dy: Green's theorem on unit steps
    return np.add.reduceat(contribution, bounds[:-1])


def _largest(
    owner: npt.NDArray[np.int32], area: npt.NDArray[np.intp], count: int
) -> npt.NDArray[np.intp]:
    """Return for each instance the cycle with the largest area, -1 where there is none."""
    chosen = np.full(count, -1, dtype=np.intp)
    order = np.argsort(area, kind="stable")
    order = order[owner[order] <= count]
    chosen[owner[order] - 1] = order  # later ones, which are larger, overwrite
    return chosen
