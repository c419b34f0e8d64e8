"""The pictures of a package: its cover, and what the network answers."""

from __future__ import annotations

import io
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from ml_backend.domain import LabelImage, Pixels
from ml_backend.service.overlay import colours_of, display_image

WIDTHS: Final = (1024, 768, 512, 384)  # pixels; the first whose file is small enough is taken
MOST_BYTES: Final = 480_000  # BioImage.IO wants covers below 500 kB
TINT: Final = 0.35  # of an object's colour inside its outline
OUTLINE: Final = 3  # pixels
DIVIDER: Final = 4  # pixels
FLOW_LENGTH: Final = 5.0  # of the flows that networks answer with

FloatArray = npt.NDArray[np.float32]


def draw_cover(pixels: Pixels, labels: LabelImage) -> bytes:
    """Return a PNG, twice as wide as high: an image, and in its right half what was found there.

    Args:
        pixels: (Y, X, C).
        labels: (Y, X) int32, 0 = background, what the network found in it.
    """
    picture, found = _two_to_one(display_image(pixels)), _two_to_one(labels)
    content = b""
    for width in WIDTHS:
        file = io.BytesIO()
        Image.fromarray(_drawn(picture, found, width)).save(file, format="PNG", optimize=True)
        content = file.getvalue()
        if len(content) <= MOST_BYTES:
            break
    return content


def draw_answer(answer: FloatArray) -> bytes:
    """Return a PNG of a network's `answer: (3, Y, X)`: hue is the flow's direction.

    It is bright where the flow is strong, and dark where the cell probability is below a half.
    """
    flow_y, flow_x, cell_probability = answer
    angle = (np.arctan2(flow_y, flow_x) / (2 * np.pi) + 1.0) % 1.0
    strength = np.clip(np.hypot(flow_y, flow_x) / FLOW_LENGTH, 0, 1)
    value = strength * (cell_probability > 0)
    colours = np.stack([angle * 180 % 180, np.full_like(angle, 255), 255 * value], axis=-1)
    picture = cv2.cvtColor(colours.astype(np.uint8), cv2.COLOR_HSV2RGB)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG", optimize=True)
    return file.getvalue()


def _two_to_one(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    # the middle of it, twice as wide as high
    height, width = array.shape[:2]
    rows, columns = min(height, width // 2), min(width, 2 * height)
    top, left = (height - rows) // 2, (width - columns) // 2
    return array[top : top + rows, left : left + columns]


def _drawn(
    picture: npt.NDArray[np.generic], labels: npt.NDArray[np.generic], width: int
) -> npt.NDArray[np.uint8]:
    size = (width, width // 2)
    enlarges = width > picture.shape[1]
    method = cv2.INTER_CUBIC if enlarges else cv2.INTER_AREA
    shown = np.asarray(cv2.resize(picture, size, interpolation=method), np.uint8)
    # float: OpenCV resizes no 32-bit integers
    enlarged = cv2.resize(labels.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
    objects = enlarged.astype(np.int32)
    colours = colours_of(int(objects.max(initial=0)))
    kernel = np.ones((OUTLINE, OUTLINE), np.uint8)
    outline = (cv2.erode(enlarged, kernel) != enlarged) | (cv2.dilate(enlarged, kernel) != enlarged)
    right = np.zeros(objects.shape, bool)
    right[:, width // 2 :] = True
    inside = right & (objects > 0)
    drawn = shown.copy()
    mixed = (1 - TINT) * shown[inside] + TINT * colours[objects[inside]]
    drawn[inside] = mixed.astype(np.uint8)
    drawn[inside & outline] = colours[objects[inside & outline]]
    middle = width // 2
    drawn[:, middle - DIVIDER // 2 : middle + DIVIDER // 2] = 255
    return drawn
