"""The object of a crop, set off from its background, as the descriptors look at it.

A crop has one object in the middle of something even: what lies at its border is background, and
the object is what differs from it, darker or brighter or of another colour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from ml_backend.domain import Pixels
from ml_backend.errors import ImageError

FloatArray = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

LONGEST_SIDE: Final = 256  # pixels; what is larger is shrunk, and its scale kept
LOWER_PERCENTILE, UPPER_PERCENTILE = 0.1, 99.9  # of values that have no range of their own
SAMPLED: Final = 512  # rows and columns that percentiles of a larger channel are taken of
FAINT: Final = 0.4  # of Otsu's threshold: what also belongs to the object, like hairs and gills
FAINTEST: Final = 0.03  # of the full range; less is noise of the background
SPECK: Final = 0.02  # of the largest part; what is smaller is dust
SMALLEST_SPECK: Final = 4  # pixels
SMALLEST_AXIS: Final = 0.3  # pixels; standard deviation along an axis of a single pixel


@dataclass(frozen=True, kw_only=True)
class PrincipalAxes:
    """Where a mask lies, and how it is spread."""

    row: float  # of the centre, pixels
    column: float
    angle: float  # of the long axis, radians from the columns' direction towards the rows'
    major: float  # standard deviation along the long axis, pixels
    minor: float


@dataclass(frozen=True, kw_only=True)
class Foreground:
    """A crop with its object."""

    difference: FloatArray  # (Y, X, C) in -1..1: from the background, the full range is 1
    background: FloatArray  # (C,) in 0..1, the median of the border
    contrast: FloatArray  # (Y, X) in 0..1: root mean square of `difference` over channels
    threshold: float  # of the contrast, Otsu's
    body: Mask  # (Y, X) contrast above the threshold, without dust
    whole: Mask  # (Y, X) what is faint included, and dust
    scale: float  # pixels of the crop as it came per pixel here, >= 1
    height: int  # of the crop as it came, pixels
    width: int
    axes: PrincipalAxes  # of `body`


def find_foreground(pixels: Pixels) -> Foreground:
    """Return the object in `pixels: (Y, X, C)` of any data type.

    The threshold is Otsu's (1979, "A Threshold Selection Method from Gray-Level Histograms") on
    the difference from the border's median.

    Raises:
        ImageError: there are no pixels.
    """
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise ImageError(f"An image of the shape {pixels.shape} has no pixels to describe.")
    height, width = pixels.shape[:2]
    scale = max(1.0, max(height, width) / LONGEST_SIDE)
    values = np.stack([_shrunk(channel, scale) for channel in _to_unit_range(pixels)], axis=2)
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    background = np.median(border, axis=0).astype(np.float32)
    difference = values - background
    contrast = np.sqrt(np.square(difference).mean(axis=2, dtype=np.float32))
    threshold = _otsu(contrast)
    body = _without_dust(contrast > threshold)
    return Foreground(
        difference=difference,
        background=background,
        contrast=contrast,
        threshold=threshold,
        body=body,
        whole=contrast > max(FAINT * threshold, FAINTEST),
        scale=scale,
        height=height,
        width=width,
        axes=principal_axes(body),
    )


def principal_axes(mask: Mask) -> PrincipalAxes:
    """Return centre, direction and spread of `mask: (Y, X)`; of an empty one, of the frame."""
    if not mask.any():
        mask = np.ones_like(mask)
    rows, columns = np.nonzero(mask)
    row, column = float(rows.mean()), float(columns.mean())
    down, right = rows - row, columns - column
    yy, xx = float((down * down).mean()), float((right * right).mean())
    xy = float((down * right).mean())
    half_sum, half_difference = (xx + yy) / 2, math.hypot((xx - yy) / 2, xy)
    return PrincipalAxes(
        row=row,
        column=column,
        angle=0.5 * math.atan2(2 * xy, xx - yy),
        major=max(SMALLEST_AXIS, math.sqrt(half_sum + half_difference)),
        minor=max(SMALLEST_AXIS, math.sqrt(max(0.0, half_sum - half_difference))),
    )


def _to_unit_range(pixels: Pixels) -> list[FloatArray]:
    """Return each channel in 0..1.

    Eight bits keep their full range, so that a pale object stays pale. Other types do not tell what
    range a camera fills: there the image's own extremes count, over all channels together.
    """
    channels = [pixels[..., index] for index in range(pixels.shape[2])]
    if pixels.dtype == np.uint8:
        return [channel.astype(np.float32) / np.float32(255) for channel in channels]
    if pixels.dtype.kind == "b":
        return [channel.astype(np.float32) for channel in channels]
    # a magnitude of 1 first, because the difference of the largest doubles is not a number
    sample = np.concatenate([_sample(channel).ravel() for channel in channels])
    sample = sample[np.isfinite(sample)]
    magnitude = float(np.abs(sample).max(initial=0.0))
    if magnitude == 0.0:
        return [np.zeros(channel.shape, np.float32) for channel in channels]
    low, high = np.percentile(sample / magnitude, (LOWER_PERCENTILE, UPPER_PERCENTILE))
    if high <= low:
        low, high = float(sample.min()) / magnitude, float(sample.max()) / magnitude
    if high <= low:
        return [np.zeros(channel.shape, np.float32) for channel in channels]
    return [_mapped(channel, magnitude, float(low), float(high)) for channel in channels]


def _sample(channel: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    steps = [max(1, edge // SAMPLED) for edge in channel.shape]
    return channel[:: steps[0], :: steps[1]].astype(np.float64)


def _mapped(channel: npt.NDArray[Any], magnitude: float, low: float, high: float) -> FloatArray:
    values = channel.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        values /= magnitude
        values -= low
        values /= high - low
    # what is no number counts as the smallest, as everywhere else in this package
    return np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1).astype(np.float32)


def _shrunk(channel: FloatArray, scale: float) -> FloatArray:
    if scale == 1.0:
        return channel
    height, width = (max(1, round(edge / scale)) for edge in channel.shape)
    return np.asarray(
        cv2.resize(channel, (width, height), interpolation=cv2.INTER_AREA), np.float32
    )


def _otsu(contrast: FloatArray) -> float:
    strongest = float(contrast.max())
    if strongest <= 0:
        return 0.0
    levels = np.round(contrast * (255 / strongest)).astype(np.uint8)
    level, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return float(level) / 255 * strongest


def _without_dust(mask: Mask) -> Mask:
    count, parts, statistics, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=8
    )
    if count <= 2:
        return mask
    areas = statistics[:, cv2.CC_STAT_AREA]
    areas[0] = 0  # the background
    kept = areas >= max(SMALLEST_SPECK, SPECK * areas.max())
    return np.asarray(kept[parts], np.bool_) if kept.any() else mask
