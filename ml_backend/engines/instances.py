"""Flows and cell probability to a label image with a score per object.

Score of an object, 0..1:

    score = mean of sigmoid(cell probability logit) over its pixels  x  max(0, 1 - flow error)

The first factor is how sure the network is that its pixels are cell, the second how well its
flows fit the shape; the flow error is Cellpose's (0 perfect, above 0.4 thrown away by default).

Images above `WHOLE_IMAGE_PIXELS` are worked on in blocks that overlap, so that memory beyond the
flows does not grow with the image. An object belongs to the block that its middle lies in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from cellpose import utils

from ml_backend.domain import LabelImage
from ml_backend.engines.dynamics import follow_flows, group_endpoints
from ml_backend.engines.flow_error import flow_errors

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Followed = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
Follow = Callable[[FloatArray, BoolArray, int], Followed]

SMALLEST_SIDE = 4  # pixels; nothing that could be called a cell is in a narrower image
LARGEST_SHARE = 0.4  # of the image; Cellpose drops larger objects
WHOLE_IMAGE_PIXELS = 2048 * 2048
BLOCK = 1024  # pixels a side
SMALLEST_OVERLAP = 96  # pixels a block sees beyond its side


@dataclass(frozen=True, kw_only=True)
class InstanceOptions:
    """What decides which objects are found in given flows."""

    flow_threshold: float  # largest accepted flow error; 0 = accept all
    cellprob_threshold: float  # logit
    iterations: int  # steps of the flow dynamics
    min_size: int  # pixels; smaller objects are dropped


@dataclass(frozen=True, kw_only=True)
class Instances:
    """The objects of one image."""

    labels: LabelImage
    scores: FloatArray  # (N,) in 0..1
    flow_errors: FloatArray  # (N,), 0 = perfect


def follow_on_cpu(flows: FloatArray, inside: BoolArray, iterations: int) -> Followed:
    """Return `follow_flows` computed in the calling thread."""
    return follow_flows(flows, inside, iterations, device=torch.device("cpu"))


def find_instances(
    flows: FloatArray,
    cell_probability: FloatArray,
    options: InstanceOptions,
    *,
    diameter: float | None = None,
    follow: Follow = follow_on_cpu,
) -> Instances:
    """Return the objects that `flows` and `cell_probability` describe.

    Args:
        flows: (2, Y, X), Y and X flow, five times as long as a unit vector.
        cell_probability: (Y, X) logits.
        options: thresholds and sizes.
        diameter: of an object in pixels, if known; large images need it to overlap their blocks.
        follow: moves pixels along flows, as `follow_on_cpu` does.
    """
    height, width = cell_probability.shape
    if min(height, width) < SMALLEST_SIDE:
        return _nothing(cell_probability.shape)
    largest = LARGEST_SHARE * height * width
    if height * width <= WHOLE_IMAGE_PIXELS:
        return _find(flows, cell_probability, options, largest, follow)
    overlap = overlap_for(diameter)
    return _find_in_blocks(flows, cell_probability, options, overlap=overlap, follow=follow)


def overlap_for(diameter: float | None) -> int:
    """Return how many pixels a block sees beyond its side, for objects of that diameter."""
    return max(SMALLEST_OVERLAP, int(2 * diameter) if diameter else 0)


def _nothing(shape: tuple[int, ...]) -> Instances:
    none = np.zeros(0, np.float32)
    return Instances(labels=np.zeros(shape, np.int32), scores=none, flow_errors=none)


def _find(
    flows: FloatArray,
    cell_probability: FloatArray,
    options: InstanceOptions,
    largest: float,
    follow: Follow,
) -> Instances:
    inside = cell_probability > options.cellprob_threshold
    if not inside.any():
        return _nothing(cell_probability.shape)
    pixels, ends = follow(flows, inside, options.iterations)
    height, width = cell_probability.shape
    raw = group_endpoints(pixels, ends, (height, width), largest=largest)
    errors = flow_errors(raw, flows)
    if options.flow_threshold > 0:
        raw, errors = _keep(raw, errors, errors <= options.flow_threshold)
    if len(errors) == 0:
        return _nothing(cell_probability.shape)
    # a copy: Cellpose works in place, and the labels before are needed to know who is who
    filled = utils.fill_holes_and_remove_small_masks(raw.copy(), min_size=options.min_size)
    labels, errors = _match(filled.astype(np.int32), raw, errors)
    return Instances(
        labels=labels,
        scores=_scores(labels, cell_probability, errors),
        flow_errors=errors.astype(np.float32),
    )


def _keep(
    labels: LabelImage, errors: npt.NDArray[np.float64], kept: BoolArray
) -> tuple[LabelImage, npt.NDArray[np.float64]]:
    if kept.all():
        return labels, errors
    numbers = np.zeros(len(errors) + 1, np.int32)
    numbers[1:][kept] = np.arange(1, np.count_nonzero(kept) + 1)
    return numbers[labels], errors[kept]


def _match(
    labels: LabelImage, before: LabelImage, errors: npt.NDArray[np.float64]
) -> tuple[LabelImage, npt.NDArray[np.float64]]:
    # labels 1..N without gaps, and the error each object had before holes were filled
    both = (labels > 0) & (before > 0)
    present = np.flatnonzero(np.bincount(labels.ravel()))
    present = present[present > 0]
    source = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
    source[labels[both]] = before[both]
    numbers = np.zeros(len(source), np.int32)
    numbers[present] = np.arange(1, len(present) + 1)
    return numbers[labels], errors[source[present] - 1]


def _scores(
    labels: LabelImage, cell_probability: FloatArray, errors: npt.NDArray[np.float64]
) -> FloatArray:
    inside = labels > 0
    owners = labels[inside]
    certainty = 1.0 / (1.0 + np.exp(-cell_probability[inside].astype(np.float64)))
    count = np.bincount(owners, minlength=len(errors) + 1)[1:]
    mean = np.bincount(owners, weights=certainty, minlength=len(errors) + 1)[1:] / count
    return (mean * np.clip(1.0 - errors, 0.0, 1.0)).astype(np.float32)


def _find_in_blocks(
    flows: FloatArray,
    cell_probability: FloatArray,
    options: InstanceOptions,
    *,
    overlap: int,
    follow: Follow,
    block: int = BLOCK,
) -> Instances:
    height, width = cell_probability.shape
    labels = np.zeros((height, width), np.int32)
    scores: list[FloatArray] = []
    errors: list[FloatArray] = []
    count = 0
    largest = LARGEST_SHARE * height * width
    for top in range(0, height, block):
        for left in range(0, width, block):
            margin = overlap
            while True:
                rows = slice(max(0, top - margin), min(height, top + block + margin))
                columns = slice(max(0, left - margin), min(width, left + block + margin))
                found = _find(
                    np.ascontiguousarray(flows[:, rows, columns]),
                    np.ascontiguousarray(cell_probability[rows, columns]),
                    options,
                    largest,
                    follow,
                )
                mine = _in_core(found.labels, (top - rows.start, left - columns.start), block)
                if not mine[_on_cut(found.labels, rows, columns, (height, width))].any():
                    break
                margin *= 2  # an object of this block reaches beyond what was looked at
            owned = _paint(found.labels, mine, labels[rows, columns], count)
            scores.append(found.scores[owned])
            errors.append(found.flow_errors[owned])
            count += len(owned)
    return Instances(
        labels=labels, scores=np.concatenate(scores), flow_errors=np.concatenate(errors)
    )


def _in_core(found: LabelImage, core: tuple[int, int], block: int) -> BoolArray:
    """Return by label whether the object's middle lies in the block that starts at `core`."""
    rows, columns = np.nonzero(found)
    owners = found[rows, columns]
    sizes = np.maximum(np.bincount(owners, minlength=1), 1)  # a block may be empty
    middle_y = np.bincount(owners, weights=rows, minlength=1) / sizes - core[0]
    middle_x = np.bincount(owners, weights=columns, minlength=1) / sizes - core[1]
    mine = (middle_y >= 0) & (middle_y < block) & (middle_x >= 0) & (middle_x < block)
    mine[0] = False
    return np.asarray(mine, dtype=np.bool_)


def _on_cut(
    found: LabelImage, rows: slice, columns: slice, shape: tuple[int, int]
) -> npt.NDArray[np.int32]:
    """Return the labels on those edges of a window that are not edges of the image."""
    edges = [
        (rows.start > 0, found[0]),
        (rows.stop < shape[0], found[-1]),
        (columns.start > 0, found[:, 0]),
        (columns.stop < shape[1], found[:, -1]),
    ]
    return np.concatenate([np.zeros(0, np.int32), *(edge for inner, edge in edges if inner)])


def _paint(
    found: LabelImage, mine: BoolArray, target: LabelImage, count: int
) -> npt.NDArray[np.intp]:
    # draw the objects that are `mine` into `target`; return their indices
    rows, columns = np.nonzero(found)
    owners = found[rows, columns]
    sizes = np.bincount(owners, minlength=1)
    # an object that a neighbouring block already drew (its middle fell on the line) stays its own
    taken = np.bincount(owners, weights=target[rows, columns] > 0, minlength=len(sizes))
    owned = np.flatnonzero(mine & (taken < 0.5 * np.maximum(sizes, 1)))
    numbers = np.zeros(len(sizes), np.int32)
    numbers[owned] = np.arange(count + 1, count + 1 + len(owned))
    drawn = numbers[owners]
    free = (drawn > 0) & (target[rows, columns] == 0)
    target[rows[free], columns[free]] = drawn[free]
    return owned - 1
