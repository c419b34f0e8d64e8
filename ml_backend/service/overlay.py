"""A picture of an image with its instances outlined."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
import numpy.typing as npt

from ml_backend.domain import LabelImage, Pixels

GOLDEN_RATIO = 0.618033988749895  # neighbours in number get colours far apart


def display_image(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """Return (Y, X, 3) uint8 RGB for the eye, each channel stretched (1st to 99.8th percentile).

    `pixels`: (Y, X, C) of any data type. One channel becomes gray; of two, green and magenta; of
    more, the first three. 8-bit RGB is shown as it is.
    """
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return np.ascontiguousarray(pixels)
    stretched = np.stack(
        [_stretch(pixels[..., channel]) for channel in range(min(3, pixels.shape[2]))], axis=-1
    )
    if stretched.shape[2] == 1:
        return np.repeat(stretched, 3, axis=2)
    if stretched.shape[2] == 2:
        return np.stack([stretched[..., 1], stretched[..., 0], stretched[..., 1]], axis=-1)
    return stretched


def _stretch(channel: Pixels) -> npt.NDArray[np.uint8]:
    values = np.nan_to_num(channel.astype(np.float32))
    low, high = np.percentile(values, [1, 99.8])
    scaled = (values - low) / max(float(high - low), 1e-9)
    return np.asarray(np.clip(scaled, 0, 1) * 255, dtype=np.uint8)


def draw_outlines(pixels: Pixels, labels: LabelImage) -> npt.NDArray[np.uint8]:
    """Return (Y, X, 3) uint8 RGB: the image with each instance's inner border in its own colour.

    `pixels`: (Y, X, C); `labels`: (Y, X) int32, 0 = background.
    """
    picture = display_image(pixels).copy()
    kernel = np.ones((3, 3), np.uint8)
    as_float = labels.astype(np.float32)  # OpenCV has no morphology for 32-bit integers
    differs = cv2.dilate(as_float, kernel) != cv2.erode(as_float, kernel)
    border = differs & (labels > 0)
    picture[border] = colours_of(int(labels.max(initial=0)))[labels[border]]
    return picture


def colours_of(count: int) -> npt.NDArray[np.uint8]:
    """Return (count + 1, 3) RGB, a colour for each instance; that of the background is black."""
    return np.array([(0, 0, 0), *(_colour(number) for number in range(1, count + 1))], np.uint8)


def _colour(number: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb((number * GOLDEN_RATIO) % 1.0, 0.85, 1.0)
    return int(red * 255), int(green * 255), int(blue * 255)
