"""Label image -> every instance as polygons with holes, exactly, along pixel edges.

What comes out is valid by the rules that geometry libraries check (OGC Simple Features): no ring
meets itself, holes lie inside their outline, and two rings of a polygon share single corners only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from skimage.measure import label as connected_parts

from ml_backend.domain import LabelImage
from ml_backend.geometry.cycles import Cycles, enclosed_areas, trace_cycles

Ring = npt.NDArray[np.int32]
"""(K, 2) x, y of the pixel corners where an outline turns, K >= 4, without the closing one."""

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, eq=False)
class Shape:
    """One instance."""

    label: int
    # its 4-connected parts: of each the outline, clockwise as the picture is seen (which is
    # anticlockwise where y points up), and then the holes, the other way round
    parts: tuple[tuple[Ring, ...], ...]

    @property
    def has_holes(self) -> bool:
        """Return whether any part has a hole."""
        return any(len(rings) > 1 for rings in self.parts)

    @property
    def area(self) -> int:
        """Return its pixels."""
        return sum(_area(ring) for part in self.parts for ring in part)

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """Return left, top, right, bottom: edges, so that right - left is the width."""
        outlines = np.concatenate([part[0] for part in self.parts])
        left, top = outlines.min(axis=0).tolist()
        right, bottom = outlines.max(axis=0).tolist()
        return left, top, right, bottom


def trace_shapes(labels: LabelImage) -> Iterator[Shape]:
    """Yield every instance that has pixels, in the order of the labels.

    `labels`: (Y, X) int32, 0 = background.
    """
    cycles = trace_cycles(labels)
    part = _parts(labels, cycles)
    start, step, bounds, origin = _split(cycles)
    area = enclosed_areas(start, step, bounds)
    corners, corner_bounds = _corners(start, step, bounds)
    # by instance, in it by part, of that the outline first
    order = np.lexsort((area < 0, part[origin], cycles.owner[origin]))
    shape: dict[int, list[Ring]] = {}
    number = 0
    for ring in order.tolist():
        owner = int(cycles.owner[origin[ring]])
        if owner != number and shape:
            yield _shape(number, shape)
            shape = {}
        number = owner
        points = corners[corner_bounds[ring] : corner_bounds[ring + 1]]
        shape.setdefault(int(part[origin[ring]]), []).append(points)
    if shape:
        yield _shape(number, shape)


def _area(ring: Ring) -> int:
    # negative for the rim of a hole; 64 bits, since large images have large products
    x, y = ring.astype(np.int64).T
    return int((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) // 2


def _shape(number: int, rings: dict[int, list[Ring]]) -> Shape:
    return Shape(label=number, parts=tuple(tuple(part) for part in rings.values()))


def _parts(labels: LabelImage, cycles: Cycles) -> Indices:
    """Return for each cycle the number of the 4-connected part of its instance that it bounds."""
    count = int(cycles.owner.max(initial=0)) + 1
    is_hole = cycles.area < 0
    outlines = np.bincount(cycles.owner[~is_hole], minlength=count)
    holes = np.bincount(cycles.owner[is_hole], minlength=count)
    # one outline: all holes are in it; no holes: every outline is a part; the rest must look
    unclear = (outlines > 1) & (holes > 0)
    part = np.where(outlines[cycles.owner] > 1, np.arange(len(cycles.owner)), 0)
    if unclear.any():
        parts = connected_parts(np.where(unclear[labels], labels, 0), connectivity=1)
        looked = unclear[cycles.owner]
        part[looked] = parts[tuple(cycles.pixel_yx[looked].T)]
    return part


def _split(cycles: Cycles) -> tuple[Indices, Indices, Indices, Indices]:
    """Return start, step, bounds of rings that visit each corner once, and each ring's cycle.

    Where a part touches itself at a corner its outline passes there twice: cut there, it becomes
    the outline and the rim of a hole that touches it, or one hole becomes two.
    """
    lengths = np.diff(cycles.bounds)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    corner = cycles.start_yx[:, 1] * (cycles.start_yx[:, 0].max(initial=0) + 1)
    corner += cycles.start_yx[:, 0]
    order = np.lexsort((corner, owner))
    again = (np.diff(owner[order]) == 0) & (np.diff(corner[order]) == 0)
    crossed = np.zeros(len(lengths), dtype=np.bool_)
    crossed[owner[order[1:][again]]] = True
    picked = [np.flatnonzero(~crossed[owner])]
    origin = np.flatnonzero(~crossed).tolist()
    ring_lengths = lengths[~crossed].tolist()
    for cycle in np.flatnonzero(crossed).tolist():
        first, last = cycles.bounds[cycle : cycle + 2].tolist()
        for ring in _simple_rings(corner[first:last].tolist()):
            picked.append(np.asarray(ring, dtype=np.intp) + first)
            origin.append(cycle)
            ring_lengths.append(len(ring))
    sides = np.concatenate(picked)
    bounds = np.concatenate([[0], np.cumsum(ring_lengths)]).astype(np.intp)
    return cycles.start_yx[sides], cycles.step_yx[sides], bounds, np.asarray(origin, dtype=np.intp)


def _simple_rings(corners: list[int]) -> Iterator[list[int]]:
    """Yield the indices of a walk's sides, cut wherever it comes back to a corner."""
    open_sides: list[int] = []
    place: dict[int, int] = {}  # of a corner in `open_sides`
    for side, corner in enumerate([*corners, corners[0]]):
        if corner in place:
            back_to = place[corner]
            ring = open_sides[back_to:]
            yield ring
            del open_sides[back_to:]
            for closed in ring:
                place.pop(corners[closed], None)
        place[corner] = len(open_sides)
        open_sides.append(side)


def _corners(start: Indices, step: Indices, bounds: Indices) -> tuple[Ring, Indices]:
    """Return the corners where each ring turns, x before y, and the rings' bounds in them."""
    if len(start) == 0:
        return np.zeros((0, 2), dtype=np.int32), bounds
    before = np.arange(len(start)) - 1
    before[bounds[:-1]] = bounds[1:] - 1  # the last side of the same ring
    turns = (step != step[before]).any(axis=1)
    ends = np.concatenate([[0], np.cumsum(turns)])
    return start[turns][:, ::-1].astype(np.int32), ends[bounds]
