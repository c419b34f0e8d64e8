"""Objects in .npy files, which NumPy stores as a pickle, read without unpickling them."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from ml_backend.errors import ImageDecodeError, ImageTooLarge
from ml_backend.training.pickle_description import Blob, StoredArray, describe_pickle

LARGEST_FILE: Final = 2_000_000_000  # bytes
MOST_HEADER: Final = 10_000  # bytes
_PLAIN: Final = frozenset("biuf")  # kinds of numbers


def read_object(path: Path) -> Any:
    """Return the object in a .npy file: dictionaries, lists, texts, numbers and `StoredArray`.

    Raises:
        ImageDecodeError: it is no such file, is damaged, or holds anything else.
        ImageTooLarge: it is too large, or says too much.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise ImageTooLarge(
            f"{path.name} has {size / 1e9:.1f} GB, more than the {LARGEST_FILE / 1e9:.0f} GB that "
            "are read; save its masks as a TIFF file."
        )
    with path.open("rb") as file:
        if not _skip_header(file, path.name):
            raise ImageDecodeError(f"{path.name} holds plain numbers and no dictionary.")
        try:
            whole = describe_pickle(file, size, path.name)
        except (ValueError, IndexError, KeyError, TypeError, EOFError, OverflowError) as error:
            raise _damaged(path.name, error) from error
        except MemoryError as error:
            raise ImageTooLarge(f"{path.name} does not fit into memory.") from error
    if not isinstance(whole, StoredArray) or whole.shape != () or not _is_one(whole.content):
        raise ImageDecodeError(f"{path.name} holds no dictionary; save it with Cellpose again.")
    return whole.content[0]


def array_of(stored: StoredArray, path: Path, *, most: int) -> npt.NDArray[Any]:
    """Return an array that `read_object` found in the file at `path`.

    Args:
        stored: the array.
        path: the file.
        most: numbers that it may have.

    Raises:
        ImageDecodeError: it is no array of numbers, or damaged.
        ImageTooLarge: it has more numbers.
        OSError: the file cannot be read.
    """
    kind, content = _type_of(stored, path.name), stored.content
    count = 1
    for length in stored.shape:
        if not isinstance(length, int) or isinstance(length, bool) or length < 0:
            raise _damaged(path.name, "an array without a shape")
        count *= length
    if count > most:
        raise ImageTooLarge(f"{path.name} holds an array of {count} numbers, more than {most}.")
    if isinstance(content, Blob):
        if content.size != count * kind.itemsize:
            raise _damaged(path.name, "an array of another size")
        with path.open("rb") as file:
            file.seek(content.start)
            content = file.read(content.size)
    if not isinstance(content, bytes) or len(content) != count * kind.itemsize:
        raise _damaged(path.name, "an array of another size")
    numbers = np.frombuffer(content, kind)
    if stored.columns_first:
        return numbers.reshape(stored.shape[::-1]).transpose()
    return numbers.reshape(stored.shape)


def holds_objects(path: Path) -> bool:
    """Return whether a .npy file holds objects and no numbers.

    Raises:
        ImageDecodeError: it is no such file, or is damaged.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return _skip_header(file, path.name)


def _type_of(stored: StoredArray, name: str) -> np.dtype[Any]:
    kind = stored.kind
    if kind is None or kind.code[:1] not in _PLAIN or kind.order not in ("<", ">", "=", "|"):
        raise ImageDecodeError(f"{name} holds an array that is no array of numbers.")
    if kind.code[1:] not in ("1", "2", "4", "8"):
        raise ImageDecodeError(f"{name} holds numbers of the unknown type {kind.code[:20]!r}.")
    try:
        return np.dtype(f"{'' if kind.order == '|' else kind.order}{kind.code}")
    except TypeError as error:
        raise _damaged(name, error) from error


def _skip_header(file: IO[bytes], name: str) -> bool:
    """Read up to where the content begins; return whether it is objects."""
    npy: Any = np.lib.format  # has no type hints
    try:
        readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        _, _, kind = readers[npy.read_magic(file)](file, max_header_size=MOST_HEADER)
    except (ValueError, KeyError, TypeError, SyntaxError, EOFError) as error:
        raise _damaged(name, error) from error
    return bool(kind.hasobject)


def _is_one(content: Any) -> bool:
    return isinstance(content, list) and len(content) == 1


def _damaged(name: str, reason: object) -> ImageDecodeError:
    said = " ".join(str(reason).split())[:80] or type(reason).__name__
    return ImageDecodeError(f"{name} is damaged ({said}); save it with Cellpose again.")
