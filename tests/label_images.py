"""Label images for tests: random ones, and cells as a microscope shows them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from ml_backend.domain import LabelImage

SETS = (
    "dsb2018_fluo",
    "dsb2018_histology",
    "dsb2018_brightfield",
    "bbbc039_nuclei16",
    "usiigaci_phase",
    "plantseg_membrane",
)


def noise(max_side: int = 24, max_label: int = 4) -> st.SearchStrategy[LabelImage]:
    """Label images of any shape in which labels may be missing or lie in pieces."""
    side = st.integers(1, max_side)
    return st.tuples(side, side).flatmap(
        lambda shape: arrays(np.int32, shape, elements=st.integers(0, max_label))
    )


def blobs(max_cells: int = 30) -> st.SearchStrategy[LabelImage]:
    """Elliptical cells of any size, many of them touching, on a frame that is not square."""
    return st.builds(
        draw_cells,
        seed=st.integers(0, 2**32 - 1),
        count=st.integers(0, max_cells),
        height=st.integers(40, 120),
        width=st.integers(40, 160),
        radius=st.floats(3, 12),
    )


def draw_cells(*, seed: int, count: int, height: int, width: int, radius: float) -> LabelImage:
    """Return a frame with up to `count` cells, cut where they overlap like growing cells are."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] + 0.5
    nearest = np.full((height, width), 1.0)
    labels = np.zeros((height, width), dtype=np.int32)
    for label in range(1, count + 1):
        centre_y, centre_x = random.uniform(0, height), random.uniform(0, width)
        a, b = radius * random.uniform(0.7, 1.3, 2)
        turn = random.uniform(0, np.pi)
        along = (x - centre_x) * np.cos(turn) + (y - centre_y) * np.sin(turn)
        across = (y - centre_y) * np.cos(turn) - (x - centre_x) * np.sin(turn)
        distance = (along / a) ** 2 + (across / b) ** 2
        mine = distance < nearest
        labels[mine] = label
        nearest[mine] = distance[mine]
    whole = np.zeros_like(labels)
    for label in range(1, count + 1):  # a cell that others cut in two keeps its larger piece
        _, parts, stats, _ = cv2.connectedComponentsWithStats(
            (labels == label).astype(np.uint8), connectivity=4
        )
        if len(stats) > 1:
            whole[parts == stats[1:, cv2.CC_STAT_AREA].argmax() + 1] = label
    return renumber(whole, min_size=12)


def renumber(labels: LabelImage, min_size: int = 1) -> LabelImage:
    """Return the label image with consecutive labels, those under min_size pixels left out."""
    kept = np.bincount(labels.ravel(), minlength=1) >= min_size
    kept[0] = False
    numbers = np.zeros(len(kept), dtype=np.int32)
    numbers[kept] = np.arange(1, int(kept.sum()) + 1)
    return np.asarray(numbers[labels], dtype=np.int32)


def discs(count: int, *, diameter: int, height: int, width: int) -> LabelImage:
    """Return `count` discs on a grid."""
    labels = np.zeros((height, width), dtype=np.int32)
    offset = np.arange(diameter) - (diameter - 1) / 2
    disc = offset[:, None] ** 2 + offset**2 < (diameter / 2) ** 2
    columns = int(np.ceil(np.sqrt(count * width / height)))
    rows = -(-count // columns)
    for index in range(count):
        row, column = divmod(index, columns)
        y = row * (height - diameter) // max(rows - 1, 1)
        x = column * (width - diameter) // max(columns - 1, 1)
        labels[y : y + diameter, x : x + diameter][disc] = index + 1
    return labels


def ious(truth: LabelImage, found: LabelImage) -> np.ndarray:
    """Return for each instance of `truth` the best IoU that an instance of `found` has with it."""
    columns = int(found.max(initial=0)) + 1
    both = (truth > 0) & (found > 0)
    pairs, overlap = np.unique(
        truth[both].astype(np.int64) * columns + found[both], return_counts=True
    )
    first, second = np.divmod(pairs, columns)
    true_area = np.bincount(truth.ravel(), minlength=1)
    found_area = np.bincount(found.ravel(), minlength=1)
    best = np.zeros(len(true_area))
    np.maximum.at(best, first, overlap / (true_area[first] + found_area[second] - overlap))
    return best[1:][true_area[1:] > 0]


def real_masks(data: Path, name: str) -> Iterator[LabelImage]:
    """Yield the label images of a data set."""
    for path in sorted((data / name / "masks").iterdir()):
        with Image.open(path) as picture:
            yield np.asarray(picture).astype(np.int32)
