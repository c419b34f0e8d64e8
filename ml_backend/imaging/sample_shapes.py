"""The outlines of made-up cells: irregular ellipses, some of them touching."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ml_backend.domain import LabelImage

Plane = npt.NDArray[np.float32]
"""(Y, X) float32."""

_TRIES_PER_CELL = 60


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How cells of one kind look in outline."""

    radius: float  # pixels, median
    spread: float  # of the radius' logarithm
    elongation: float  # longest by shortest axis, at most
    roughness: float  # of the outline, as a share of the radius
    touching: float  # share of the cells that are put next to another one, 0..1


@dataclass(frozen=True, kw_only=True)
class Outlines:
    """The outlines of cells."""

    labels: LabelImage
    depth: Plane  # 0 at the outline and outside, 1 in the middle of a cell


def draw_outlines(
    random: np.random.Generator,
    shape: tuple[int, int],
    count: int,
    kind: Kind,
    room: npt.NDArray[np.bool_] | None = None,
) -> Outlines:
    """Return up to `count` cells that do not overlap; fewer where there is no room.

    Args:
        random: where chance comes from.
        shape: (height, width) in pixels.
        count: how many cells are tried.
        kind: how they look.
        room: (Y, X) where the middle of a cell may be; None = anywhere, the edges included.
    """
    labels = np.zeros(shape, np.int32)
    depth = np.zeros(shape, np.float32)
    centres: list[tuple[float, float, float]] = []
    for _ in range(count):
        for _ in range(_TRIES_PER_CELL):
            radius = float(kind.radius * np.exp(random.normal(0, kind.spread)))
            y, x = _place(random, shape, centres, radius, kind)
            if room is not None and not _is_in(room, y, x):
                continue
            if _draw(random, labels, depth, (y, x), radius, len(centres) + 1, kind):
                centres.append((y, x, radius))
                break
    return Outlines(labels=labels, depth=depth)


def smooth_noise(random: np.random.Generator, shape: tuple[int, int], scale: float) -> Plane:
    """Return (Y, X) noise of mean 0 and standard deviation 1 that varies over `scale` pixels."""
    # Drawn coarse and enlarged: blurring white noise over hundreds of pixels would take seconds.
    step = max(1, int(scale / 2))
    coarse = random.normal(size=(shape[0] // step + 3, shape[1] // step + 3)).astype(np.float32)
    fine = ndimage.zoom(ndimage.gaussian_filter(coarse, scale / step), step, order=1)
    noise = fine[: shape[0], : shape[1]]
    return np.asarray((noise - noise.mean()) / (noise.std() + 1e-6), np.float32)


def _place(
    random: np.random.Generator,
    shape: tuple[int, int],
    centres: list[tuple[float, float, float]],
    radius: float,
    kind: Kind,
) -> tuple[float, float]:
    if centres and random.random() < kind.touching:
        y, x, other = centres[random.integers(len(centres))]
        angle = random.uniform(0, 2 * np.pi)
        distance = (radius + other) * random.uniform(0.85, 1.05)
        return y + distance * np.sin(angle), x + distance * np.cos(angle)
    return random.uniform(0, shape[0]), random.uniform(0, shape[1])


def _is_in(room: npt.NDArray[np.bool_], y: float, x: float) -> bool:
    inside = 0 <= y < room.shape[0] and 0 <= x < room.shape[1]
    return inside and bool(room[int(y), int(x)])


def _draw(
    random: np.random.Generator,
    labels: LabelImage,
    depth: Plane,
    centre: tuple[float, float],
    radius: float,
    number: int,
    kind: Kind,
) -> bool:
    """Draw a cell unless it would hide more than a little of another one."""
    reach = int(radius * 1.8) + 2
    top, left = (max(0, int(place) - reach) for place in centre)
    window = np.s_[top : int(centre[0]) + reach + 1, left : int(centre[1]) + reach + 1]
    area = labels[window]
    if area.size == 0:
        return False
    yy, xx = np.mgrid[: area.shape[0], : area.shape[1]].astype(np.float32)
    inside = _depth_of_cell(random, yy + top - centre[0], xx + left - centre[1], radius, kind)
    mask = inside > 0
    taken = np.count_nonzero(mask & (area > 0))
    if np.count_nonzero(mask) < 12 or taken > 0.12 * np.count_nonzero(mask):
        return False
    free = mask & (area == 0)
    area[free] = number
    depth[window][free] = inside[free]
    return True


def _depth_of_cell(
    random: np.random.Generator, dy: Plane, dx: Plane, radius: float, kind: Kind
) -> Plane:
    angle = random.uniform(0, np.pi)
    stretch = np.sqrt(random.uniform(1, kind.elongation))
    along = (dx * np.cos(angle) + dy * np.sin(angle)) / (radius * stretch)
    across = (dy * np.cos(angle) - dx * np.sin(angle)) / (radius / stretch)
    direction = np.arctan2(across, along)
    outline = np.ones_like(direction)
    for wave in range(2, 6):
        outline += (
            kind.roughness
            / wave
            * random.normal()
            * np.cos(wave * direction + random.uniform(0, 7))
        )
    return np.asarray(np.clip(1 - np.hypot(along, across) / outline, 0, 1), np.float32)
