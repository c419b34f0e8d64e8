"""NPY files: written piece by piece, read without unpickling and within a size."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from numpy.lib import format as numpy_format

from ml_backend.errors import ImageDecodeError, ImageTooLarge

npy: Any = numpy_format  # its stubs know neither types nor the limit on headers

MAGIC: bytes = npy.MAGIC_PREFIX
"""What an NPY file begins with."""

_HEADER_BYTES = 10_000  # numpy's own limit; ours are 128
_MOST_DIMENSIONS = 32
_PIECE = 3 << 18  # bytes, a multiple of 3: pieces of base64 can be put together


def write_npy(file: BinaryIO, array: npt.NDArray[Any]) -> None:
    """Write an array of numbers as an NPY file."""
    for piece in npy_pieces(array):
        file.write(piece)


def write_npy_base64(file: BinaryIO, array: npt.NDArray[Any]) -> None:
    """Write an array of numbers as an NPY file in base64."""
    rest = b""
    for piece in npy_pieces(array):
        joined = rest + bytes(piece) if rest else piece
        whole = len(joined) // 3 * 3
        file.write(base64.b64encode(joined[:whole]))
        rest = bytes(joined[whole:])
    file.write(base64.b64encode(rest))


def npy_pieces(array: npt.NDArray[Any]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of an NPY file of `array`, which is copied only where it lies in pieces."""
    contiguous = np.ascontiguousarray(array)
    header = io.BytesIO()
    npy.write_array_header_1_0(
        header,
        {
            "descr": npy.dtype_to_descr(array.dtype),
            "fortran_order": False,
            "shape": array.shape,  # ascontiguousarray gives a single number a dimension
        },
    )
    yield header.getvalue()
    if contiguous.size:
        content = contiguous.reshape(-1).view(np.uint8).data
        for first in range(0, len(content), _PIECE):
            yield content[first : first + _PIECE]


def read_npy(content: bytes | memoryview, *, max_values: int) -> npt.NDArray[Any]:
    """Return the array of numbers in the bytes of an NPY file, which it may share.

    Nothing is allocated before the header was checked, and nothing is ever unpickled.

    Raises:
        ImageDecodeError: these are no such bytes, or they hold something else than numbers.
        ImageTooLarge: it has more than `max_values` numbers.
    """
    view = memoryview(content)
    file = io.BytesIO(view[: _HEADER_BYTES + 16])
    try:
        version = npy.read_magic(file)
        if version == (1, 0):
            header = npy.read_array_header_1_0(file, max_header_size=_HEADER_BYTES)
        elif version == (2, 0):
            header = npy.read_array_header_2_0(file, max_header_size=_HEADER_BYTES)
        else:
            raise ValueError(f"version {version} is for named fields, which are no numbers")
    except (ValueError, EOFError, TypeError, SyntaxError, OverflowError) as error:
        raise ImageDecodeError(
            "This is no NPY file, or its header is damaged; write it with numpy.save."
        ) from error
    shape, fortran_order, kind = header
    if kind.hasobject or kind.kind not in "biuf":
        raise ImageDecodeError(
            f"The NPY file holds {str(kind)[:40]} and no plain numbers; convert the array first."
        )
    if len(shape) > _MOST_DIMENSIONS or not all(map(_is_length, shape)):
        raise ImageDecodeError("The NPY file has an impossible shape; write it again.")
    values = math.prod(shape)
    if values > max_values:
        raise ImageTooLarge(
            f"The array has {values} numbers, more than the {max_values} that are allowed; "
            "cut it into pieces."
        )
    data = view[file.tell() :]
    if len(data) != values * kind.itemsize:
        raise ImageDecodeError(
            f"The NPY file should hold {values * kind.itemsize} bytes of numbers and holds "
            f"{len(data)}; it was cut or damaged."
        )
    flat = np.frombuffer(data, dtype=kind, count=values) if values else np.zeros(0, kind)
    array = flat.reshape(shape, order="F" if fortran_order else "C")
    return array.astype(kind.newbyteorder("="), copy=False)


def _is_length(length: object) -> bool:
    return type(length) is int and length >= 0  # a header may say True


def read_npy_base64(text: str | bytes | memoryview, *, max_values: int) -> npt.NDArray[Any]:
    """Return the array of numbers in the base64 text of an NPY file.

    Raises:
        ImageDecodeError, ImageTooLarge: as `read_npy`; also where the text is no base64.
    """
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageDecodeError(
            f"This is no base64 text ({str(error)[:80]}); encode the bytes of an NPY file."
        ) from None
    return read_npy(content, max_values=max_values)
