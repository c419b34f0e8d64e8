"""The diameter of an image's objects, for a network that only knows one size.

A network bound to a scale still finds objects that are up to about twice too small or too large,
only less well. So: look at the image as it is, measure the objects found, and resize it by what
they are off. Where that changes the scale a lot, the answer of the first look is not to be trusted
and the second is measured again. Where nothing is found, other scales are tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_backend.domain import LabelImage

CLOSE_ENOUGH = 1.2  # a diameter off by less needs no other scale
TRUSTED = 1.7  # a diameter off by less was seen well enough to choose the scale by
SMALLEST_SCALE, LARGEST_SCALE = 1 / 8, 6.0  # network pixels per image pixel
OTHER_SCALES = (2.0, 0.5, 4.0, 0.25)  # where nothing is found at the first
MOST_LOOKS = 4


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was found in an image at one scale."""

    scale: float  # network pixels per image pixel
    diameters: npt.NDArray[np.float64]  # (N,) of the objects, network frame
    scores: npt.NDArray[np.float32]  # (N,) in 0..1


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """How to resize an image for a network that only knows one size."""

    scale: float  # network pixels per image pixel
    diameter: float  # of the objects found, in image pixels


def equivalent_diameters(labels: LabelImage) -> npt.NDArray[np.float64]:
    """Return the diameter of the disc of each object's area, (N,), in pixels of `labels`."""
    areas = np.bincount(labels.ravel())[1:]
    return np.sqrt(areas[areas > 0] * 4 / np.pi)


def median_diameter(labels: LabelImage) -> float:
    """Return the median of `equivalent_diameters`, 0 when there is no object."""
    diameters = equivalent_diameters(labels)
    return float(np.median(diameters)) if len(diameters) else 0.0


def estimate_scale(look: Callable[[float], Look], network_diameter: float) -> Estimate | None:
    """Return the scale at which objects have about the network's diameter.

    Args:
        look: runs the network at a scale.
        network_diameter: of objects in its training, in pixels.

    Returns:
        The estimate, or None when nothing is found at any scale. Where the objects of a look were
        near enough to the network's diameter its scale is that look's, so that its answer serves.
    """
    best: Look | None = None
    scale = 1.0
    tried: list[float] = []
    others = iter(OTHER_SCALES)
    while len(tried) < MOST_LOOKS + len(OTHER_SCALES):
        seen = look(scale)
        tried.append(scale)
        if len(seen.diameters) == 0:
            if best is not None:
                break
            following = next(others, None)
            if following is None:
                return None
            scale = following
            continue
        if best is None or _weight(seen, network_diameter) > _weight(best, network_diameter):
            best = seen
        wanted = _wanted_scale(seen, network_diameter)
        if _ratio(wanted, scale) < TRUSTED or len(tried) >= MOST_LOOKS:
            break
        if any(_ratio(wanted, earlier) < 1.1 for earlier in tried):
            break  # going round in circles
        scale = wanted
    if best is None:
        return None
    wanted = _wanted_scale(best, network_diameter)
    # the scale that the best look asks for may have been tried, and explained less of the image
    tried_before = any(_ratio(wanted, earlier) < CLOSE_ENOUGH for earlier in tried)
    return Estimate(
        scale=best.scale if tried_before else wanted,
        diameter=float(np.median(best.diameters)) / best.scale,
    )


def _wanted_scale(look: Look, network_diameter: float) -> float:
    wanted = look.scale * network_diameter / float(np.median(look.diameters))
    return min(max(wanted, SMALLEST_SCALE), LARGEST_SCALE)


def _weight(look: Look, network_diameter: float) -> float:
    # how much of the image is explained, how well, and how near to the size the network knows
    off = abs(math.log(float(np.median(look.diameters)) / network_diameter))
    area = float((look.scores * (look.diameters / look.scale) ** 2).sum())
    return area * math.exp(-off)


def _ratio(one: float, other: float) -> float:
    return max(one, other) / min(one, other)
