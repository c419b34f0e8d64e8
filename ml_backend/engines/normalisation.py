"""Detector values to the range that networks were trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ml_backend.domain import Pixels

FloatArray = npt.NDArray[np.float32]

LOWER_PERCENTILE, UPPER_PERCENTILE = 1.0, 99.0
SMALLEST_RANGE = 1e-3  # between the percentiles; Cellpose calls anything flatter blank
SAMPLED_ABOVE = 224**3  # pixels; beyond it Cellpose takes percentiles of every n-th pixel
CLAHE_CLIP_LIMIT = 3.0
CLAHE_TILES = (16, 16)


@dataclass(frozen=True, kw_only=True)
class NormalisedImage:
    """An image as networks want it."""

    channels: FloatArray  # (C, Y, X), 1st percentile 0, 99th 1; a blank channel is 0 everywhere
    blank: tuple[bool, ...]  # per channel: it holds nothing to see


def normalise(pixels: Pixels, *, clahe: bool = False) -> NormalisedImage:
    """Return each channel of `pixels: (Y, X, C)` mapped by its percentiles, as Cellpose 4 does.

    With `clahe` each channel first gets contrast-limited adaptive histogram equalisation
    (clip limit 3, 16 x 16 tiles). Values that are not finite count as the channel's smallest.
    """
    count = pixels.shape[2]
    channels = np.zeros((count, *pixels.shape[:2]), np.float32)
    blank = []
    for index in range(count):
        mapped = _normalise_channel(pixels[..., index], clahe)
        blank.append(mapped is None)
        if mapped is not None:
            channels[index] = mapped
    return NormalisedImage(channels=channels, blank=tuple(blank))


def _normalise_channel(channel: npt.NDArray[Any], clahe: bool) -> FloatArray | None:
    finite = _finite(channel)
    if clahe:
        finite = _equalise(finite)
    low, high = _percentiles(finite)
    if high - low <= SMALLEST_RANGE:
        return None
    mapped = finite.astype(np.float32)
    mapped -= np.float32(low)
    mapped /= np.float32(high - low)
    return mapped


def _finite(channel: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if channel.dtype.kind == "b":
        return channel.astype(np.uint8)
    if channel.dtype.kind != "f":
        return channel
    good = np.isfinite(channel)
    if good.all():
        return channel
    smallest = channel[good].min() if good.any() else 0
    return np.where(good, channel, smallest)


def _percentiles(channel: npt.NDArray[Any]) -> tuple[float, float]:
    if channel.size > SAMPLED_ABOVE:
        channel = channel[:: max(1, channel.shape[0] // 224), :: max(1, channel.shape[1] // 224)]
    if channel.dtype == np.float16:
        channel = channel.astype(np.float32)
    low, high = np.percentile(channel, (LOWER_PERCENTILE, UPPER_PERCENTILE))
    return float(low), float(high)


def _equalise(channel: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    # 256 levels: with more, a tile has fewer pixels than levels and the clip limit flattens all.
    # The extremes are cut because a single hot pixel would leave the rest a few levels.
    low, high = np.percentile(channel, (0.1, 99.9))
    if high <= low:
        low, high = float(channel.min()), float(channel.max())
    if high <= low:
        return np.zeros(channel.shape, np.uint8)
    scaled = (channel.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    levels = np.clip(scaled, 0, 255).round().astype(np.uint8)
    equaliser = cv2.createCLAHE(clipLimit=CLAHE_CLIP_LIMIT, tileGridSize=CLAHE_TILES)
    return np.asarray(equaliser.apply(levels), np.uint8)


def to_three_channels(image: NormalisedImage, *, repeat_gray: bool) -> FloatArray:
    """Return `image` as (3, Y, X).

    Args:
        image: any number of channels; those beyond the third are left out.
        repeat_gray: the network was trained on gray images repeated three times, so a blank
            channel is no information: one channel left is repeated, of two the third is the
            mean. Otherwise missing channels are 0, as in Cellpose.
    """
    channels = image.channels[:3]
    if repeat_gray:
        seen = [index for index in range(len(channels)) if not image.blank[index]]
        if len(seen) == 1:
            return np.broadcast_to(channels[seen[0]], (3, *channels.shape[1:]))
        if len(seen) == 2:
            two = channels[seen]
            return np.concatenate([two, two.mean(axis=0, keepdims=True)])
    if len(channels) == 3:
        return channels
    missing = np.zeros((3 - len(channels), *channels.shape[1:]), np.float32)
    return np.concatenate([channels, missing])


def resize(channels: FloatArray, height: int, width: int, *, average: bool) -> FloatArray:
    """Return `channels: (C, Y, X)` as (C, height, width), interpolated linearly.

    Args:
        channels: float, any range.
        height: pixels.
        width: pixels.
        average: shrink by averaging areas instead, which keeps small bright objects.
    """
    if channels.shape[1:] == (height, width):
        return channels
    shrinking = height < channels.shape[1] and width < channels.shape[2]
    method = cv2.INTER_AREA if average and shrinking else cv2.INTER_LINEAR
    out = np.empty((len(channels), height, width), np.float32)
    if channels.strides[0] == 0:  # one gray channel, repeated
        gray = cv2.resize(channels[0], (width, height), interpolation=method)
        return np.broadcast_to(gray, (len(channels), height, width))
    out = np.empty((len(channels), height, width), np.float32)
    for index, channel in enumerate(channels):
        cv2.resize(channel, (width, height), dst=out[index], interpolation=method)
    return out
