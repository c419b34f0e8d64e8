"""COCO's run lengths: pixels counted down the columns, background and instance in turns."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ml_backend.domain import LabelImage
from ml_backend.geometry.runs import Runs, find_runs


class ColumnRuns:
    """The runs of all instances of a label image down its columns, found when first needed."""

    def __init__(self, labels: LabelImage) -> None:
        """Keep a (Y, X) label image, 0 = background."""
        self._labels = labels

    def rle(self, label: int) -> dict[str, Any]:
        """Return an instance as compressed RLE: {"size": [height, width], "counts": text}."""
        height, width = self._labels.shape
        plain = {"size": [height, width], "counts": self._counts(label)}
        packed = coco_mask.frPyObjects(plain, height, width)
        return {"size": [height, width], "counts": packed["counts"].decode("ascii")}

    def _counts(self, label: int) -> list[int]:
        # a run that reaches the last row goes on at the top of the next column, as COCO counts
        own = slice(*self._runs.bounds[label - 1 : label + 1])
        edges = np.stack([self._runs.start[own], self._runs.stop[own]], axis=1).ravel()
        counts = np.diff(np.concatenate([[0], edges, [self._labels.size]]))
        return [int(count) for count in (counts if counts[-1] else counts[:-1])]

    @cached_property
    def _runs(self) -> Runs:
        return find_runs(np.ascontiguousarray(self._labels.T))
