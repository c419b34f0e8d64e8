"""The masks in Cellpose's `_seg.npy` files, read without unpickling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_backend.errors import ImageDecodeError
from ml_backend.training.object_npy import array_of, read_object
from ml_backend.training.pickle_description import StoredArray

MASKS = "masks"


def read_seg(path: Path, *, max_pixels: int) -> npt.NDArray[Any]:
    """Return the masks that Cellpose or its graphical program saved, (Y, X) of any integer type.

    Outlines, flows, colours and everything else in the file are left alone.

    Args:
        path: the file.
        max_pixels: the most that are read.

    Raises:
        ImageDecodeError: it holds no masks of one plane, is damaged or holds what no masks need.
        ImageTooLarge: it has too many pixels.
        OSError: it cannot be read.
    """
    found = read_object(path)
    masks = found.get(MASKS) if isinstance(found, dict) else None
    if not isinstance(masks, StoredArray):
        raise ImageDecodeError(
            f"{path.name} holds no masks; open its image in Cellpose, outline the objects and save."
        )
    array = array_of(masks, path, most=max_pixels)
    array = array.reshape([length for length in array.shape if length != 1] or [1])
    if array.ndim != 2:
        shape = " x ".join(map(str, masks.shape))
        raise ImageDecodeError(
            f"{path.name} holds masks of {shape}; only single planes are learned from, so cut "
            "image and masks into planes (Cellpose's make_train does that)."
        )
    return np.asarray(array)
