"""Arrays in files, mapped into memory: a large project needs disk and no memory.

NumPy's own mapping keeps a file open for each array, of which a process may have only about a
thousand; PyTorch's does not.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch


def save_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write `array` as a .npy file that is whole or not there, also after a power loss.

    Raises:
        OSError: the disk is full or cannot be written; nothing is left behind.
    """
    # aside first: a killed session must not leave half an array that the next one trusts
    aside = path.with_suffix(".part")
    try:
        with aside.open("wb") as file:
            np.save(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def map_array(path: Path) -> npt.NDArray[Any]:
    """Return the array of a .npy file, read from it when it is looked at; not to be written to.

    Raises:
        EOFError, ValueError: the file is damaged.
        OSError: it is not there or cannot be read.
    """
    found = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(found, np.memmap):
        raise ValueError(f"{path} is no .npy file")
    start, kind, shape = found.offset, found.dtype, found.shape
    order: Literal["C", "F"] = "C" if found.flags.c_contiguous else "F"
    end = start + found.nbytes
    del found  # closes the file
    content = torch.from_file(str(path), shared=False, size=end, dtype=torch.uint8).numpy()
    array: npt.NDArray[Any] = content[start:].view(kind).reshape(shape, order=order)
    array.flags.writeable = False
    return array
