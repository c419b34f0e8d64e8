"""Many instances <-> one mask in which they stay separable.

Where two instances touch side by side, the pixels of one of them along the border are left out:
of the larger one, since it has more to lose. With 8-connectivity, or with a gap that is closed
diagonally, many nuclei would be read back as one; so the gap separates and the instances hold
together by 4-connectivity, when they are written and when they are read. Reading gives a gap pixel
to the larger of the instances beside it, which undoes writing.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ml_backend.domain import ControlTag, LabelImage
from ml_backend.geometry.patches import Patch
from ml_backend.geometry.runs import count_instances
from ml_backend.labelstudio.geometry import measure_shapes

PER_PIXEL = frozenset(
    {ControlTag.BRUSH, ControlTag.BRUSH_LABELS, ControlTag.BITMASK, ControlTag.BITMASK_LABELS}
)
"""The tags whose regions may be any set of pixels, hence hold several instances."""

_ROUNDS = 5  # in which instances that fell apart are given precedence
_WHOLE = 0.95  # share of what is left of an instance that its largest part must have
_GROWING_STEPS = 3  # the second and third reach pixels in the corner of a bent gap

Mask = npt.NDArray[np.bool_]


def merge_instances(labels: LabelImage) -> Mask:
    """Return one (Y, X) mask of all instances in which no two of them touch side by side.

    An instance that would fall into pieces or vanish keeps its border and its neighbours give way
    instead; where that does not help, only its largest 4-connected piece stays.
    """
    areas = np.bincount(labels.ravel(), minlength=1)
    first, second = _touching(labels)
    flat = labels.ravel()
    # who is lower keeps its border: smaller ones first, labels decide between equals
    rank = areas * float(len(areas)) + np.arange(len(areas))
    preferred = np.zeros(len(areas), dtype=np.bool_)
    for attempt in range(1, _ROUNDS + 1):
        mask = (labels > 0).ravel()
        mask[np.where(rank[flat[first]] > rank[flat[second]], first, second)] = False
        parts = _Parts.of(mask.reshape(labels.shape), labels)
        vanished = (parts.largest == 0) & (areas > 0)
        vanished[0] = False
        torn = (parts.largest < _WHOLE * parts.total) & ~preferred
        broken = np.flatnonzero(vanished | torn)
        if len(broken) == 0 or attempt == _ROUNDS:
            break
        preferred[broken] = True
        rank[broken] -= attempt * (rank.max() + 1)
    return parts.only_largest()


def split_merged(mask: Mask, min_size: int = 0) -> LabelImage:
    """Return the instances of a mask: its 4-connected parts, grown back into the gaps.

    Args:
        mask: (Y, X).
        min_size: Parts with fewer pixels, those won back included, are dropped.
    """
    _, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    labels = np.pad(parts, 1)
    for _ in range(_GROWING_STEPS):
        if not _grow_into_gaps(labels):
            break
    grown = labels[1:-1, 1:-1]
    kept = np.bincount(grown.ravel()) >= min_size
    kept[0] = False
    renumbered = np.zeros(len(kept), dtype=np.int32)
    renumbered[kept] = np.arange(1, int(kept.sum()) + 1)
    instances: LabelImage = renumbered[grown]
    return instances


def split_parts(patch: Patch, min_size: int) -> list[Patch]:
    """Return the instances in a mask that may hold several, a gap of one pixel apart.

    Parts below half the minimum size are dropped (an instance at the minimum may have lost pixels
    at its border), unless nothing else is there.
    """
    if patch.mask.size == 0:
        return []
    count, _ = cv2.connectedComponents(patch.mask.astype(np.uint8), connectivity=4)
    if count == 2:  # the background and one part: what a region of its own holds
        return [patch]
    labels = split_merged(patch.mask, max(1, min_size // 2))
    if not labels.any():
        labels = split_merged(patch.mask)
        sizes = np.bincount(labels.ravel())
        labels = (labels == sizes[1:].argmax() + 1).astype(np.int32)
    parts = []
    for index, box in enumerate(measure_shapes(labels).boxes.astype(np.intp).tolist(), 1):
        left, top, right, bottom = box
        mask = labels[top:bottom, left:right] == index
        parts.append(Patch(y=patch.y + top, x=patch.x + left, mask=mask))
    return parts


def _touching(labels: LabelImage) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the flat indices of all pairs of neighbours side by side of two instances."""
    pairs = []
    width = labels.shape[1]
    for here, there, step in (
        (labels[:, :-1], labels[:, 1:], 1),
        (labels[:-1], labels[1:], width),
    ):
        y, x = np.nonzero((here != there) & (here > 0) & (there > 0))
        index = y * width + x
        pairs.append(np.stack([index, index + step]))
    first, second = np.concatenate(pairs, axis=1)
    return first, second


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """The 4-connected parts of a mask in which instances do not touch."""

    parts: LabelImage
    owner: npt.NDArray[np.int32]  # (P,) the instance that a part belongs to
    sizes: npt.NDArray[np.int32]  # (P,) pixels
    largest: npt.NDArray[np.int64]  # by instance: pixels of its largest part
    total: npt.NDArray[np.int64]  # by instance: pixels of all its parts

    @classmethod
    def of(cls, mask: Mask, labels: LabelImage) -> _Parts:
        count, parts, stats, _ = cv2.connectedComponentsWithStats(
            mask.astype(np.uint8), connectivity=4, ltype=cv2.CV_32S
        )
        owner = np.zeros(count, dtype=np.int32)
        owner[parts[mask]] = labels[mask]
        sizes = stats[:, cv2.CC_STAT_AREA]
        sizes[0] = 0
        largest = np.zeros(count_instances(labels) + 1, dtype=np.int64)
        total = largest.copy()
        np.maximum.at(largest, owner, sizes)
        np.add.at(total, owner, sizes)
        return cls(parts=parts, owner=owner, sizes=sizes, largest=largest, total=total)

    def only_largest(self) -> Mask:
        """Return the mask with one part of each instance."""
        order = np.argsort(self.sizes, kind="stable")
        chosen = np.zeros(len(self.largest), dtype=np.intp)
        chosen[self.owner[order]] = order  # later ones, which are larger, overwrite
        kept = np.zeros(len(self.owner), dtype=np.bool_)
        kept[chosen[1:]] = True
        kept[0] = False
        mask: Mask = kept[self.parts]
        return mask


def _grow_into_gaps(labels: LabelImage) -> bool:
    """Give the pixels between two instances to the larger one; `labels` has a rim of one pixel."""
    taken = labels > 0
    around = taken[:-2, 1:-1].astype(np.uint8)
    for neighbour in (taken[2:, 1:-1], taken[1:-1, :-2], taken[1:-1, 2:]):
        around += neighbour
    y, x = np.nonzero((around >= 2) & ~taken[1:-1, 1:-1])
    width = labels.shape[1]
    pixel = (y + 1) * width + x + 1
    flat = labels.ravel()
    beside = flat[pixel[:, None] + np.array([-width, width, -1, 1])]
    smallest = np.where(beside > 0, beside, np.iinfo(np.int32).max).min(axis=1)
    between = beside.max(axis=1) != smallest
    pixel, beside = pixel[between], beside[between]
    areas = np.bincount(flat)
    areas[0] = 0
    best = areas[beside].argmax(axis=1)
    flat[pixel] = beside[np.arange(len(pixel)), best]
    return len(pixel) > 0
