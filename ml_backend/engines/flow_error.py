"""How well the network's flows fit the flows that a finished mask would have.

The value of an object is the one of `cellpose.dynamics.flow_error`: heat is fed into the object's
centre, spreads inside the object and is lost at its border; the gradient, made a unit vector, is
compared with the network's flow. Cellpose gathers nine neighbours of every mask pixel from the
whole image in each of some hundred steps. Here objects are laid into strips of their boxes, where
the nine neighbours are shifts of a contiguous array, so a step is four additions and a product.

    strip   +---------------+     every box has one empty pixel around it;
            | box 1   |     |     the strip is as wide as its widest box,
            |---------------|     and boxes of similar width share a strip
            | box 2     |   |
            +---------------+

The values are Cellpose's to twelve digits, except where the gradient vanishes by symmetry, as in
the middle of a blob of 5 x 5 pixels: there Cellpose's unit vector is made of rounding errors, and
ours is 0.

Floor: 5 flops and about 10 x 8 bytes in cache, per box pixel and step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

STRIP_PIXELS = 32768  # five arrays of doubles stay in the second-level cache


@dataclass(frozen=True, kw_only=True)
class _Pixels:
    """All pixels of all objects, side by side."""

    rows: IntArray  # (P,) in the image
    columns: IntArray  # (P,)
    owners: IntArray  # (P,) index of the object, 0..N-1


@dataclass(frozen=True, kw_only=True)
class _Boxes:
    """The smallest rectangle around each object."""

    tops: IntArray  # (N,)
    lefts: IntArray  # (N,)
    heights: IntArray  # (N,)
    widths: IntArray  # (N,)


def flow_errors(
    labels: npt.NDArray[np.int32], flows: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Return the mean squared distance of the flows from each object's own, (N,), 0 is perfect.

    Args:
        labels: (Y, X), 0 = background, 1..N = objects, consecutive.
        flows: (2, Y, X), the network's, five times as long as a unit vector.
    """
    slices = find_objects(labels)
    if not slices:
        return np.zeros(0)
    rows, columns = np.nonzero(labels)
    pixels = _Pixels(rows=rows, columns=columns, owners=labels[rows, columns].astype(np.int64) - 1)
    boxes = _Boxes(
        tops=np.array([y.start for y, _ in slices]),
        lefts=np.array([x.start for _, x in slices]),
        heights=np.array([y.stop - y.start for y, _ in slices]),
        widths=np.array([x.stop - x.start for _, x in slices]),
    )
    heat = _heat(labels, pixels, boxes)
    down = heat[rows + 2, columns + 1] - heat[rows, columns + 1]
    right = heat[rows + 1, columns + 2] - heat[rows + 1, columns]
    length = 1e-60 + np.sqrt(down**2 + right**2)
    errors = (down / length - flows[0, rows, columns] / 5.0) ** 2
    errors += (right / length - flows[1, rows, columns] / 5.0) ** 2
    sizes = np.bincount(pixels.owners)
    return np.bincount(pixels.owners, weights=errors) / sizes


def _heat(labels: npt.NDArray[np.int32], pixels: _Pixels, boxes: _Boxes) -> FloatArray:
    # (Y + 2, X + 2): gradients reach one pixel over an object's border, and there into a neighbour
    # that touches it, as in Cellpose
    heat = np.zeros((labels.shape[0] + 2, labels.shape[1] + 2))
    centres = _centres(labels, pixels, boxes)
    # Cellpose takes the steps of the largest object for all
    steps = 2 * int((boxes.heights + boxes.widths + 2).max())
    groups = list(_strips(boxes))
    strip_of = np.empty(len(boxes.tops), np.int64)
    top_of = np.empty(len(boxes.tops), np.int64)  # of an object's box, in its strip
    for number, group in enumerate(groups):
        strip_of[group] = number
        top_of[group] = 1 + np.concatenate([[0], np.cumsum(boxes.heights[group] + 1)[:-1]])
    strip_of_pixel = strip_of[pixels.owners]
    by_strip = np.argsort(strip_of_pixel, kind="stable")
    ends = np.cumsum(np.bincount(strip_of_pixel, minlength=len(groups)))
    for group, part in zip(groups, np.split(by_strip, ends[:-1]), strict=True):
        width = int(boxes.widths[group].max()) + 2
        owners = pixels.owners[part]
        rows, columns = pixels.rows[part], pixels.columns[part]
        shift_y, shift_x = top_of - boxes.tops, 1 - boxes.lefts  # from the image into the strip
        places = (rows + shift_y[owners]) * width + columns + shift_x[owners]
        sources = (centres[group, 0] + shift_y[group]) * width
        sources += centres[group, 1] + shift_x[group]
        height = int(top_of[group[-1]] + boxes.heights[group[-1]] + 1)
        heat[rows + 1, columns + 1] = _diffuse(places, sources, (height, width), steps)
    return heat


def _centres(labels: npt.NDArray[np.int32], pixels: _Pixels, boxes: _Boxes) -> IntArray:
    # (N, 2): the pixel of each object that is nearest to its centre of mass
    sizes = np.bincount(pixels.owners)
    # rounded in the box, as Cellpose does: a half goes to the even number
    inner_rows = pixels.rows - boxes.tops[pixels.owners]
    inner_columns = pixels.columns - boxes.lefts[pixels.owners]
    rows = np.round(np.bincount(pixels.owners, weights=inner_rows) / sizes).astype(np.int64)
    columns = np.round(np.bincount(pixels.owners, weights=inner_columns) / sizes).astype(np.int64)
    rows += boxes.tops
    columns += boxes.lefts
    for index in np.flatnonzero(labels[rows, columns] != np.arange(1, len(sizes) + 1)):
        own = pixels.owners == index
        y, x = pixels.rows[own], pixels.columns[own]
        nearest = int(((x - columns[index]) ** 2 + (y - rows[index]) ** 2).argmin())
        rows[index], columns[index] = y[nearest], x[nearest]
    return np.stack([rows, columns], axis=1)


def _strips(boxes: _Boxes) -> Iterator[npt.NDArray[np.intp]]:
    # groups of similar width, at most STRIP_PIXELS each unless one object is larger
    order = np.lexsort((boxes.heights, boxes.widths))
    first, rows = 0, 1
    for position, index in enumerate(order):
        rows += int(boxes.heights[index]) + 1
        if rows * (int(boxes.widths[index]) + 2) > STRIP_PIXELS and position > first:
            yield order[first:position]
            first, rows = position, int(boxes.heights[index]) + 2
    yield order[first:]


def _diffuse(places: IntArray, sources: IntArray, shape: tuple[int, int], steps: int) -> FloatArray:
    # places: flat indices of the objects' pixels in the strip; returns their heat
    size, width = shape[0] * shape[1], shape[1]
    share = np.zeros(size)  # of its neighbours' heat; none outside the objects
    share[places] = 1.0 / 9.0
    inner_share = share[width:-width]
    spread = np.zeros(size)
    across = np.zeros(size)
    around = np.empty(size - 2 * width)
    inner = spread[width:-width]
    for _ in range(steps):
        spread[sources] += 1
        np.add(spread[:-2], spread[1:-1], out=across[1:-1])
        across[1:-1] += spread[2:]
        np.add(across[: -2 * width], across[width:-width], out=around)
        around += across[2 * width :]
        np.multiply(around, inner_share, out=inner)
    return spread[places]
