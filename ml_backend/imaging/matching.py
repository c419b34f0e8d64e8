"""How well two label images agree: matched instances, average precision, F1, panoptic quality.

A ground truth instance and a predicted one match when their intersection over union (IoU) reaches
a threshold; each instance matches at most once. Average precision is Cellpose's definition,
TP / (TP + FP + FN), for one image.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import fastremap
import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Labels = npt.NDArray[np.integer]
"""(Y, X) of any integer type, 0 = background; numbers need not be consecutive."""


@dataclass(frozen=True, kw_only=True)
class Overlaps:
    """Which instances of two label images touch the same pixels, and how much."""

    truth_ids: npt.NDArray[np.int64]  # (T,) ascending
    predicted_ids: npt.NDArray[np.int64]  # (P,) ascending
    truth_index: npt.NDArray[np.intp]  # (K,) into truth_ids, one per pair that overlaps
    predicted_index: npt.NDArray[np.intp]  # (K,) into predicted_ids
    iou: npt.NDArray[np.float64]  # (K,) in 0..1


@dataclass(frozen=True, kw_only=True)
class AllowedLabels:
    """Which ground truth label a predicted label may match, for class-aware matching."""

    truth: Mapping[int, str]  # label of each ground truth instance, by its number
    predicted: Mapping[int, str]  # label of each predicted instance, by its number
    pairs: Collection[tuple[str, str]]  # (ground truth label, predicted label)

    def allows(self, truth_id: int, predicted_id: int) -> bool:
        """Return whether two instances may match by their labels."""
        return (self.truth.get(truth_id), self.predicted.get(predicted_id)) in self.pairs


@dataclass(frozen=True, kw_only=True)
class Match:
    """A ground truth instance and the predicted instance that is taken for it."""

    truth_id: int
    predicted_id: int
    iou: float  # 0..1


@dataclass(frozen=True, kw_only=True)
class Matching:
    """Two label images matched at one threshold, and the scores of that."""

    threshold: float  # smallest IoU of a match
    matches: tuple[Match, ...]  # by truth_id
    missed: tuple[int, ...]  # ground truth instances without a match
    spurious: tuple[int, ...]  # predicted instances without a match

    @property
    def true_positives(self) -> int:
        """Return the number of matches."""
        return len(self.matches)

    @property
    def false_positives(self) -> int:
        """Return the number of predicted instances without a match."""
        return len(self.spurious)

    @property
    def false_negatives(self) -> int:
        """Return the number of ground truth instances without a match."""
        return len(self.missed)

    @property
    def average_precision(self) -> float:
        """Return TP / (TP + FP + FN); 1 when there is nothing to find and nothing was found."""
        return _ratio(self.true_positives, self._all)

    @property
    def precision(self) -> float:
        """Return TP / (TP + FP); 1 when nothing was predicted."""
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Return TP / (TP + FN); 1 when there is nothing to find."""
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """Return 2 TP / (2 TP + FP + FN); 1 when there is nothing to find or found."""
        return _ratio(2 * self.true_positives, self.true_positives + self._all)

    @property
    def segmentation_quality(self) -> float:
        """Return the mean IoU of the matches; 0 without any."""
        return sum(match.iou for match in self.matches) / max(self.true_positives, 1)

    @property
    def panoptic_quality(self) -> float:
        """Return F1 times the mean IoU of the matches; 1 when there is nothing to find or found."""
        return self.f1 * self.segmentation_quality if self._all else 1.0

    @property
    def _all(self) -> int:
        return self.true_positives + self.false_positives + self.false_negatives


def match_instances(
    truth: Labels,
    predicted: Labels,
    *,
    thresholds: Sequence[float] = (0.5, 0.75, 0.9),
    allowed: AllowedLabels | None = None,
) -> tuple[Matching, ...]:
    """Return the instances of two label images matched, once per threshold.

    Args:
        truth: (Y, X) ground truth.
        predicted: (Y, X) of the same shape.
        thresholds: smallest IoU of a match, each above 0 and up to 1.
        allowed: which labels may match; None = instances match whatever they are.

    Raises:
        ValueError: when the shapes differ or a threshold is out of range.
    """
    overlaps = find_overlaps(truth, predicted)
    return tuple(match_overlaps(overlaps, threshold, allowed=allowed) for threshold in thresholds)


def find_overlaps(truth: Labels, predicted: Labels) -> Overlaps:
    """Return the overlapping pairs of two label images of the same shape, with their IoU.

    Raises:
        ValueError: when the shapes differ.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"the label images differ in shape: {truth.shape} and {predicted.shape}")
    truth_ids, truth_sizes = _instances(truth)
    predicted_ids, predicted_sizes = _instances(predicted)

    both = (truth > 0) & (predicted > 0)
    span = int(predicted_ids[-1]) + 1 if len(predicted_ids) else 1
    pairs = truth[both].astype(np.int64) * span + predicted[both].astype(np.int64)
    numbers, shared = _unique(pairs)
    truth_index = np.searchsorted(truth_ids, numbers // span)
    predicted_index = np.searchsorted(predicted_ids, numbers % span)
    union = truth_sizes[truth_index] + predicted_sizes[predicted_index] - shared
    return Overlaps(
        truth_ids=truth_ids,
        predicted_ids=predicted_ids,
        truth_index=truth_index,
        predicted_index=predicted_index,
        iou=shared / union,
    )


def match_overlaps(
    overlaps: Overlaps, threshold: float, *, allowed: AllowedLabels | None = None
) -> Matching:
    """Return as many matches as the threshold allows, and of these the ones with the most IoU.

    Raises:
        ValueError: when the threshold is not above 0 and up to 1.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"an IoU threshold is above 0 and up to 1, not {threshold}")
    good = overlaps.iou >= threshold
    truth_id = overlaps.truth_ids[overlaps.truth_index]
    predicted_id = overlaps.predicted_ids[overlaps.predicted_index]
    if allowed is not None:
        for pair in np.flatnonzero(good):
            good[pair] = allowed.allows(int(truth_id[pair]), int(predicted_id[pair]))
    candidates = np.flatnonzero(good)
    taken = candidates[
        _assign(
            overlaps.truth_index[candidates],
            overlaps.predicted_index[candidates],
            overlaps.iou[candidates],
        )
    ]
    taken = taken[np.argsort(truth_id[taken])]
    return Matching(
        threshold=threshold,
        matches=tuple(
            Match(
                truth_id=int(truth_id[pair]),
                predicted_id=int(predicted_id[pair]),
                iou=float(overlaps.iou[pair]),
            )
            for pair in taken
        ),
        missed=tuple(np.setdiff1d(overlaps.truth_ids, truth_id[taken]).tolist()),
        spurious=tuple(np.setdiff1d(overlaps.predicted_ids, predicted_id[taken]).tolist()),
    )


def _assign(
    rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], iou: npt.NDArray[np.float64]
) -> npt.NDArray[np.intp]:
    """Return which pairs are taken so that no row or column is taken twice.

    Above an IoU of 0.5 no instance has two candidates, so everything is taken. Below, the groups
    of instances that compete are solved one by one: they are small, a table of all is not.
    """
    crowded = (np.bincount(rows)[rows] > 1) | (np.bincount(columns)[columns] > 1)
    if not crowded.any():
        return np.arange(len(rows))
    offset = int(rows.max()) + 1
    size = offset + int(columns.max()) + 1
    graph = coo_array((np.ones(len(rows)), (rows, columns + offset)), shape=(size, size))
    _, group_of = connected_components(graph, directed=False)
    groups = group_of[rows]
    taken = [np.flatnonzero(~crowded & ~np.isin(groups, groups[crowded]))]
    for group in np.unique(groups[crowded]):
        members = np.flatnonzero(groups == group)
        taken.append(members[_solve(rows[members], columns[members], iou[members])])
    return np.concatenate(taken)


def _solve(
    rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], iou: npt.NDArray[np.float64]
) -> npt.NDArray[np.intp]:
    _, row = np.unique(rows, return_inverse=True)
    _, column = np.unique(columns, return_inverse=True)
    pair_at = np.full((row.max() + 1, column.max() + 1), -1, np.intp)
    pair_at[row, column] = np.arange(len(rows))
    worth = np.zeros(pair_at.shape)
    # One more match is worth more than any amount of IoU.
    worth[row, column] = len(rows) + iou
    found: npt.NDArray[np.intp] = pair_at[linear_sum_assignment(worth, maximize=True)]
    return found[found >= 0]


def _instances(labels: Labels) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return (numbers, sizes in pixels) of the instances, by number."""
    numbers, sizes = _unique(labels)
    inside = numbers > 0
    return numbers[inside], sizes[inside]


def _unique(values: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    if values.size == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    numbers, counts = fastremap.unique(np.ascontiguousarray(values), return_counts=True)
    return numbers.astype(np.int64), counts.astype(np.int64)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
