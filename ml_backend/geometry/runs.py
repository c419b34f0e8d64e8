"""Label image -> the horizontal runs of pixels of every instance, found once for all of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_backend.domain import LabelImage


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Runs of pixels, sorted by instance and then by position.

    `start` and `stop` are row-major pixel indices of the frame; a run ends before `stop`.
    """

    label: npt.NDArray[np.intp]  # (R,) 1..N
    start: npt.NDArray[np.intp]  # (R,)
    stop: npt.NDArray[np.intp]  # (R,)
    bounds: npt.NDArray[np.intp]  # (N + 1,) instance i + 1 has the runs bounds[i]:bounds[i + 1]

    @property
    def count(self) -> int:
        """Return the number of instances, those without pixels included."""
        return len(self.bounds) - 1

    @property
    def areas(self) -> npt.NDArray[np.intp]:
        """Return the pixels of each instance, (N,)."""
        ends = np.concatenate([[0], np.cumsum(self.stop - self.start)])
        areas: npt.NDArray[np.intp] = np.diff(ends[self.bounds])
        return areas


def count_instances(labels: LabelImage) -> int:
    """Return the highest label, 0 for an image without instances."""
    return int(labels.max(initial=0))


def find_runs(labels: LabelImage, count: int | None = None, *, within_rows: bool = False) -> Runs:
    """Return the runs of instances 1..count.

    Args:
        labels: (Y, X) int32, 0 = background.
        count: Number of instances; None = the highest label.
        within_rows: Whether runs end at the end of a row; otherwise a run that reaches the last
            column goes on in the next row's first.
    """
    count = count_instances(labels) if count is None else count
    flat = labels.ravel()
    if flat.size == 0 or count == 0:
        nothing = np.zeros(0, dtype=np.intp)
        return Runs(
            label=nothing, start=nothing, stop=nothing, bounds=np.zeros(count + 1, dtype=np.intp)
        )
    changes = flat[1:] != flat[:-1]
    if within_rows:
        changes[labels.shape[1] - 1 :: labels.shape[1]] = True
    edges = np.concatenate([[0], np.flatnonzero(changes) + 1, [flat.size]])
    label = flat[edges[:-1]]
    kept = (label > 0) & (label <= count)
    label, start, stop = label[kept], edges[:-1][kept], edges[1:][kept]
    # numpy sorts 16-bit integers by radix, which is several times faster
    keys = label.astype(np.uint16) if count < 2**16 else label
    order = np.argsort(keys, kind="stable")
    label = label[order].astype(np.intp)
    return Runs(
        label=label,
        start=start[order],
        stop=stop[order],
        bounds=np.searchsorted(label, np.arange(1, count + 2)),
    )
