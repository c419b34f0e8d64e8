"""Label image -> the outline of every instance along its pixel edges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_backend.domain import LabelImage
from ml_backend.geometry.cycles import trace_cycles


@dataclass(frozen=True, kw_only=True)
class Outlines:
    """The outer outline of the largest 4-connected part of every instance, holes filled.

    The sides of all outlines lie one after the other, each outline clockwise.
    """

    start_yx: npt.NDArray[np.int32]  # (M, 2) corner where a side starts, pixels, image frame
    step_yx: npt.NDArray[np.int32]  # (M, 2) from there to its end: (0, 1), (1, 0), (0, -1), (-1, 0)
    bounds: npt.NDArray[np.intp]  # (N + 1,) outline i has the sides bounds[i]:bounds[i + 1]


def trace_outlines(labels: LabelImage, count: int) -> Outlines:
    """Return the outlines of instances 1..count; an instance without pixels has no sides.

    At a corner where two pixels of an instance touch only diagonally the outline stays on its
    pixel, so that it encloses a 4-connected part.
    """
    cycles = trace_cycles(labels)
    chosen = _largest(cycles.owner, cycles.area, count)
    cycle_lengths = np.append(np.diff(cycles.bounds), 0)  # the last is for "there is none", -1
    lengths = cycle_lengths[chosen]
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    picked = np.repeat(np.append(cycles.bounds[:-1], 0)[chosen] - bounds[:-1], lengths)
    picked += np.arange(bounds[-1])
    return Outlines(
        start_yx=cycles.start_yx[picked].astype(np.int32),
        step_yx=cycles.step_yx[picked].astype(np.int32),
        bounds=bounds,
    )


def _largest(
    owner: npt.NDArray[np.int32], area: npt.NDArray[np.intp], count: int
) -> npt.NDArray[np.intp]:
    """Return for each instance the cycle with the largest area, -1 where there is none."""
    chosen = np.full(count, -1, dtype=np.intp)
    order = np.argsort(area, kind="stable")
    order = order[owner[order] <= count]
    chosen[owner[order] - 1] = order  # later ones, which are larger, overwrite
    return chosen
