"""Arrays as bytes of an NPY file, and back; nothing is ever unpickled."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_backend.errors import BadRequest, ServerError


def encode_npy(array: npt.ArrayLike) -> bytes:
    """Return an array as the bytes of an NPY file.

    Raises:
        BadRequest: it holds Python objects and not numbers.
    """
    numbers = np.asarray(array)
    if numbers.dtype.kind not in "biuf":
        raise BadRequest(
            f"An array of {numbers.dtype} is no image; give one of whole numbers or floats."
        )
    file = io.BytesIO()
    np.save(file, numbers, allow_pickle=False)
    return file.getvalue()


def encode_npy_text(array: npt.ArrayLike) -> str:
    """Return an array as the base64 text of an NPY file.

    Raises:
        BadRequest: it holds Python objects and not numbers.
    """
    return base64.b64encode(encode_npy(array)).decode("ascii")


def decode_npy(content: bytes) -> npt.NDArray[Any]:
    """Return the array in the bytes of an NPY file.

    Raises:
        ServerError: they are none.
    """
    try:
        return np.asarray(np.load(io.BytesIO(content), allow_pickle=False))
    except (ValueError, EOFError, OSError) as error:
        raise ServerError(f"The server sent an array that cannot be read ({error}).") from None
