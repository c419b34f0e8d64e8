"""The flows of an image as files, and where its pixels end as one array."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from ml_backend.domain import Flows
from ml_backend.formats.flow_picture import flow_picture
from ml_backend.formats.label_png import write_picture_png
from ml_backend.formats.numpy_file import write_npy

HSV: Final = "_flows_hsv.png"
XY: Final = "_flows_xy.npy"
CELL_PROBABILITY: Final = "_flows_cellprob.npy"
FINAL_POSITIONS: Final = "_flows_final_positions.npy"
FLOW_ENDINGS: Final = (HSV, XY, CELL_PROBABILITY, FINAL_POSITIONS)
"""What follows an image's name in the names of the files with its flows."""


def write_flow_files(flows: Flows, work: Path) -> Iterator[tuple[str, BinaryIO]]:
    """Yield (ending of `FLOW_ENDINGS`, file) of the four files, each until the next is asked for.

    `work` is a folder for them.
    """
    with tempfile.TemporaryFile(dir=work) as file:
        write_picture_png(file, flow_picture(flows.xy))
        yield HSV, file
    for ending, array in ((XY, flows.xy), (CELL_PROBABILITY, flows.cell_probability)):
        with tempfile.TemporaryFile(dir=work) as file:
            write_npy(file, array)
            yield ending, file
    with tempfile.TemporaryFile(dir=work) as kept, tempfile.TemporaryFile(dir=work) as file:
        write_npy(file, final_positions_array(flows, kept))
        yield FINAL_POSITIONS, file


def final_positions_array(flows: Flows, file: BinaryIO) -> npt.NDArray[np.int32]:
    """Return where every pixel ends, (2, Y, X): row and column; kept in `file`, not in memory."""
    shape = (2, *flows.cell_probability.shape)
    if 0 in shape:
        return np.zeros(shape, np.int32)
    kept: np.memmap[Any, np.dtype[np.int32]] = np.memmap(
        file, dtype=np.int32, mode="w+", shape=shape
    )
    for block in flows.final_positions():
        kept[:, block.rows, block.columns] = block.ends
    return kept
