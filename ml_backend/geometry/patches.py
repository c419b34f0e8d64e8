"""A mask that is kept as the box around it, so that a thousand of them fit in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_backend.domain import LabelImage


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A mask of part of the image frame; its box lies inside the frame."""

    y: int  # row of the frame where the mask begins
    x: int  # column of the frame where the mask begins
    mask: npt.NDArray[np.bool_]  # (height, width) of the box

    def to_mask(self, height: int, width: int) -> npt.NDArray[np.bool_]:
        """Return the mask in a frame of height x width pixels."""
        full = np.zeros((height, width), dtype=np.bool_)
        box_height, box_width = self.mask.shape
        full[self.y : self.y + box_height, self.x : self.x + box_width] = self.mask
        return full

    def paint(self, labels: LabelImage, value: int) -> None:
        """Write `value` into a frame's label image where the mask is set."""
        box_height, box_width = self.mask.shape
        labels[self.y : self.y + box_height, self.x : self.x + box_width][self.mask] = value


def crop_patch(mask: npt.NDArray[np.bool_]) -> Patch:
    """Return a frame's mask cropped to what is set; an empty one has an empty box."""
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows) == 0:
        return Patch(y=0, x=0, mask=np.zeros((0, 0), dtype=np.bool_))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask[top:bottom].any(axis=0))
    left, right = int(columns[0]), int(columns[-1]) + 1
    return Patch(y=top, x=left, mask=mask[top:bottom, left:right].copy())
