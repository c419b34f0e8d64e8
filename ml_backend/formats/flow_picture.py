"""Flows as a picture: the hue says where to, the brightness how strongly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_LOWER, _UPPER = 1.0, 99.0  # percentiles that become dark and bright
_SMALLEST_RANGE = 1e-3  # between them; anything flatter is black
_SAMPLED_ABOVE = 224**3  # pixels; beyond it Cellpose takes percentiles of every n-th pixel
_SAMPLES_A_SIDE = 224
_ROWS_AT_ONCE = 256


def flow_picture(xy: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return flows, (2, Y, X) with Y before X, as (Y, X, 3) uint8 RGB.

    The colours are those of Cellpose's `plot.dx_to_circ`; rows are worked on in strips, so that a
    large image takes little more memory than its picture.
    """
    height, width = xy.shape[1:]
    picture = np.zeros((height, width, 3), np.uint8)
    low, high = _percentiles(xy)
    if high - low <= _SMALLEST_RANGE:
        return picture
    for top in range(0, height, _ROWS_AT_ONCE):
        rows = slice(top, top + _ROWS_AT_ONCE)
        strength = np.clip((_lengths(xy[:, rows]) - low) / (high - low), 0, 1) * 127.5
        angle = np.arctan2(xy[1, rows], xy[0, rows]) + np.pi
        for channel in range(3):
            wave = np.cos(angle + channel * 2 * np.pi / 3) + 1
            picture[rows, :, channel] = np.clip(strength * wave, 0, 255)
    return picture


def _percentiles(xy: npt.NDArray[np.float32]) -> tuple[float, float]:
    height, width = xy.shape[1:]
    if height * width == 0:
        return 0.0, 0.0
    if height * width > _SAMPLED_ABOVE:
        xy = xy[:, :: max(1, height // _SAMPLES_A_SIDE), :: max(1, width // _SAMPLES_A_SIDE)]
    low, high = np.percentile(_lengths(xy), [_LOWER, _UPPER])
    return float(low), float(high)


def _lengths(xy: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths: npt.NDArray[np.float32] = np.sqrt(xy[0] ** 2 + xy[1] ** 2)
    return lengths
