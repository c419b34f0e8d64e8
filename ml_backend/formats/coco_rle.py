"""COCO's run lengths: pixels counted down the columns, background and instance in turns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from ml_backend.domain import LabelImage
from ml_backend.geometry.runs import Runs, find_runs


@dataclass(frozen=True, kw_only=True)
class Frame:
    """An image, and where in it a part of it begins; in pixels."""

    height: int
    width: int
    y: int
    x: int


class ColumnRuns:
    """The runs of all instances of a label image down its columns, found when first needed."""

    def __init__(self, labels: LabelImage, frame: Frame | None = None) -> None:
        """Keep a (Y, X) label image; `frame` = the image that it is cut from, None = it is whole.

        What `labels` holds lies inside the frame.
        """
        height, width = labels.shape
        self._labels = labels
        self._frame = frame or Frame(height=height, width=width, y=0, x=0)

    def rle(self, label: int) -> dict[str, Any]:
        """Return an instance as compressed RLE of the frame: {"size": ..., "counts": text}."""
        frame = self._frame
        counts = self._counts(label)
        plain = {"size": [frame.height, frame.width], "counts": counts}
        packed = coco_mask.frPyObjects(plain, frame.height, frame.width)
        return {"size": plain["size"], "counts": packed["counts"].decode("ascii")}

    def _counts(self, label: int) -> list[int]:
        frame, own = self._frame, slice(*self._runs.bounds[label - 1 : label + 1])
        column, row = np.divmod(self._runs.start[own], max(1, self._labels.shape[0]))
        start = (frame.x + column) * frame.height + frame.y + row
        stop = start + self._runs.stop[own] - self._runs.start[own]
        apart = start[1:] != stop[:-1]  # a run may go on at the top of the next column
        first = np.concatenate([[True], apart])[: len(start)]
        last = np.concatenate([apart, [True]])[: len(start)]
        edges = np.stack([start[first], stop[last]], axis=1).ravel()
        total = frame.height * frame.width
        counts: npt.NDArray[np.intp] = np.diff(np.concatenate([[0], edges, [total]]))
        if len(counts) > 1 and counts[-1] == 0:
            counts = counts[:-1]
        return [int(count) for count in counts]

    @cached_property
    def _runs(self) -> Runs:
        return find_runs(np.ascontiguousarray(self._labels.T), within_rows=True)
