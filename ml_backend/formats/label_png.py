"""Label images as 16-bit PNG, and pictures as PNG."""

from __future__ import annotations

from typing import BinaryIO

import cv2
import numpy as np
import numpy.typing as npt

from ml_backend.domain import LabelImage
from ml_backend.errors import ImageError
from ml_backend.formats.label_type import MOST_IN_16_BITS


def write_label_png(file: BinaryIO, labels: LabelImage) -> None:
    """Write (Y, X) labels, 0 = background, as a gray 16-bit PNG.

    Raises:
        ImageError: there are more than its 65535 values.
    """
    count = int(labels.max(initial=0))
    if count > MOST_IN_16_BITS:
        raise ImageError(
            f"{count} instances do not fit a 16-bit PNG; choose another format, such as TIFF."
        )
    _write_png(file, labels.astype(np.uint16))


def write_picture_png(file: BinaryIO, picture: npt.NDArray[np.uint8]) -> None:
    """Write a picture, (Y, X, 3) uint8 RGB, as PNG.

    Raises:
        ImageError: it cannot be encoded.
    """
    _write_png(file, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def _write_png(file: BinaryIO, values: npt.NDArray[np.uint16] | npt.NDArray[np.uint8]) -> None:
    try:
        encoded, data = cv2.imencode(".png", values)
    except cv2.error as error:
        raise ImageError(f"The image cannot be written as PNG ({error.err}).") from error
    if not encoded:
        raise ImageError("The image cannot be written as PNG; choose another format.")
    file.write(data.data)
