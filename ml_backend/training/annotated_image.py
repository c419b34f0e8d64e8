"""An image with the objects that people outlined in it, as training and scoring see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from ml_backend.domain import Image, LabelImage
from ml_backend.learning import Side

LARGEST_EDGE: Final = 32766
"""Pixels; OpenCV cuts no crops from longer images, and shrinks their labels wrongly."""

Area = npt.NDArray[np.bool_]
"""(Y, X) bool, image frame."""


@dataclass(frozen=True, kw_only=True)
class AnnotatedImage:
    """An image and its outlined objects, by one annotation of one task."""

    task_id: int  # of a dataset in files: a number that no other image of it has
    annotation_ids: tuple[int, ...]  # of the annotation that the objects are from
    group: str  # tasks of one group are always on the same side
    side: Side
    image: Image = field(repr=False)
    labels: LabelImage = field(repr=False)  # those that count, 1..N
    finished: Area | None = field(default=None, repr=False)  # where losses and scores count
    weight: float = 1.0  # the annotations of one task weigh one together
    untouched: bool = False  # every object is a prediction's region that nobody changed
    accepted_from: frozenset[str] = frozenset()  # sha256 of the networks that predicted them
    notes: tuple[str, ...] = ()  # a sentence each
    name: str | None = None  # of the file, where it is no task of Label Studio

    @property
    def title(self) -> str:
        """Return what it is called in sentences."""
        return f"Task {self.task_id}" if self.name is None else self.name

    @cached_property  # the labels may lie on disk
    def objects(self) -> int:
        """Return the number of objects that count."""
        return int(self.labels.max(initial=0))
