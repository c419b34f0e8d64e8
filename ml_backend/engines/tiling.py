"""Cutting an image into tiles for a network and putting the answers back together.

    |<------------------------ axis, zeros at both ends ------------------------>|
    [ tile 0: core        | halo ]
                 [ halo | tile 1: core        | halo ]
                                     [ halo | tile 2: core                ]

Two plans. A convolutional network sees only a neighbourhood, so its tiles are as large as the
memory allows, start at multiples of the network's stride and overlap by two halos; the outer half
of a halo, where the tile's border is felt, counts nothing and the rest is blended. A vision
transformer needs tiles of one size, and is served exactly as Cellpose does: tiles that overlap by
a tenth, weighted by Cellpose's taper, the image padded with zeros.

Weights are products of one weight per row and one per column, each divided by its sum over all
tiles, so that no array of summed weights is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from cellpose import transforms

FloatArray = npt.NDArray[np.float32]

TRANSFORMER_OVERLAP = 0.1  # of a tile, Cellpose's default


@dataclass(frozen=True, kw_only=True)
class AxisTiles:
    """The tiles along one axis."""

    length: int  # pixels of the image along the axis
    before: int  # pixels of padding in front of the image
    tile: int  # pixels of a tile
    starts: tuple[int, ...]  # in the padded axis
    weights: FloatArray  # (tiles, tile), over all tiles they add up to 1 at each pixel


@dataclass(frozen=True, kw_only=True)
class TilePlan:
    """Where the tiles of one image lie."""

    rows: AxisTiles
    columns: AxisTiles

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.rows.starts) * len(self.columns.starts)

    @property
    def tile_yx(self) -> tuple[int, int]:
        """Return height and width of every tile in pixels."""
        return self.rows.tile, self.columns.tile

    def cut(self, image: FloatArray, index: int) -> FloatArray:
        """Return tile `index` of `image: (C, Y, X)` as (C, tile height, tile width)."""
        row, column = divmod(index, len(self.columns.starts))
        y, tile_y = _overlap(self.rows, row)
        x, tile_x = _overlap(self.columns, column)
        if (y.stop - y.start, x.stop - x.start) == self.tile_yx:
            return image[:, y, x]
        tile = np.zeros((len(image), *self.tile_yx), np.float32)
        tile[:, tile_y, tile_x] = image[:, y, x]
        return tile

    def stitch(self, canvas: FloatArray, index: int, answer: FloatArray) -> None:
        """Add the network's `answer: (C, tile height, tile width)` to `canvas: (C, Y, X)`."""
        row, column = divmod(index, len(self.columns.starts))
        y, tile_y = _overlap(self.rows, row)
        x, tile_x = _overlap(self.columns, column)
        part = answer[:, tile_y, tile_x]
        if len(self) > 1:
            weight_y = self.rows.weights[row, tile_y]
            weight_x = self.columns.weights[column, tile_x]
            part = part * (weight_y[:, None] * weight_x[None, :])
        canvas[:, y, x] += part


def plan_convolution(height: int, width: int, *, stride: int, edge: int, halo: int) -> TilePlan:
    """Return tiles of at most about `edge` pixels for a network without global operations.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        stride: tile sizes and starts are multiples of it.
        edge: longest side of a tile in pixels, at least four halos.
        halo: how far from a tile's border the answer can be trusted, in pixels.

    The image gets a frame of at least one stride of zeros, by which the network knows that an
    object is cut by the image's border; tiles inside the image have none.
    """
    return TilePlan(
        rows=_convolution_axis(height, stride, edge, halo),
        columns=_convolution_axis(width, stride, edge, halo),
    )


def plan_transformer(height: int, width: int, *, tile: int) -> TilePlan:
    """Return the tiles of `tile` pixels that `cellpose.core.run_net` would use at its defaults."""
    top, bottom, left, right = transforms.get_pad_yx(height, width, min_size=(tile, tile))
    return TilePlan(
        rows=_transformer_axis(height, int(top), int(bottom), tile),
        columns=_transformer_axis(width, int(left), int(right), tile),
    )


def _convolution_axis(length: int, stride: int, edge: int, halo: int) -> AxisTiles:
    padded = math.ceil(length / stride) * stride + 2 * stride
    if padded <= edge:
        ones = np.ones((1, padded), np.float32)
        return AxisTiles(length=length, before=stride, tile=padded, starts=(0,), weights=ones)
    count = math.ceil((padded - edge) / (edge - 2 * halo)) + 1
    # the smallest tile that still gives this number of tiles
    tile = math.ceil((padded + (count - 1) * 2 * halo) / count / stride) * stride
    step = (padded - tile) / (count - 1)
    starts = tuple(round(k * step / stride) * stride for k in range(count))
    flat = halo // 2
    distance = np.arange(tile, dtype=np.float32) + 0.5
    profile = np.clip((distance - flat) / (2 * (halo - flat)), 0, 1).astype(np.float32)
    weights = np.stack([_sided(profile, k > 0, k < count - 1) for k in range(count)])
    return AxisTiles(
        length=length,
        before=stride,
        tile=tile,
        starts=starts,
        weights=_share(weights, starts, padded),
    )


def _sided(rising: FloatArray, starts_inside: bool, ends_inside: bool) -> FloatArray:
    # a tile at the image's border is trusted right up to it
    weight = np.ones_like(rising)
    if starts_inside:
        weight = np.minimum(weight, rising)
    if ends_inside:
        weight = np.minimum(weight, rising[::-1])
    return weight


def _transformer_axis(length: int, before: int, after: int, tile: int) -> AxisTiles:
    padded = length + before + after
    count = 1
    if padded > tile:
        count = math.ceil((1.0 + 2 * TRANSFORMER_OVERLAP) * padded / tile)
    starts = tuple(int(start) for start in np.linspace(0, padded - tile, count).astype(int))
    # Cellpose's taper is the product of this profile with itself
    taper = transforms._taper_mask(ly=tile, lx=tile)
    profile = (taper[tile // 2] / np.sqrt(taper[tile // 2, tile // 2])).astype(np.float32)
    weights = np.repeat(profile[None], count, axis=0)
    return AxisTiles(
        length=length,
        before=before,
        tile=tile,
        starts=starts,
        weights=_share(weights, starts, padded),
    )


def _share(weights: FloatArray, starts: tuple[int, ...], padded: int) -> FloatArray:
    tile = weights.shape[1]
    total = np.zeros(padded, np.float64)
    for weight, start in zip(weights, starts, strict=True):
        total[start : start + tile] += weight
    return np.stack(
        [
            (weight / total[start : start + tile]).astype(np.float32)
            for weight, start in zip(weights, starts, strict=True)
        ]
    )


def _overlap(axis: AxisTiles, index: int) -> tuple[slice, slice]:
    # where the tile's pixels lie in the image, and which of the tile's pixels those are
    first = axis.starts[index] - axis.before
    start, stop = max(first, 0), min(first + axis.tile, axis.length)
    return slice(start, stop), slice(start - first, stop - first)
