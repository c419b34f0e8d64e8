"""The built-in embedder: what an object looks like in numbers, with nothing to download.

Made for crops with one object each: silhouettes, blood cells, pollen. Rotating or mirroring a crop
changes its numbers little; its absolute size is kept, because for a species it matters. No number
in here is fitted to any images; `engines.scaling` fits to a project's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from ml_backend.domain import Pixels
from ml_backend.engines.descriptor_foreground import Foreground, find_foreground
from ml_backend.engines.descriptor_layout import describe_symmetry, describe_template
from ml_backend.engines.descriptor_shape import (
    describe_outline,
    describe_shape,
    describe_size,
    measure_mask,
)
from ml_backend.engines.descriptor_texture import (
    describe_colour,
    describe_covariance,
    describe_intensity,
    describe_patterns,
    describe_scattering,
)

FloatArray = npt.NDArray[np.float32]

NAME: Final = "shapes-1"
REVISION: Final = 1  # raised whenever any image's numbers change: kept ones then no longer count

LARGEST: Final = 1e6  # far above any honest number


def describe(pixels: Pixels) -> FloatArray:
    """Return the description of a crop, (DIMENSION,) float32, finite, the same every time.

    Args:
        pixels: (Y, X, C) of any size, data type and number of channels. Values that are not finite
            count as the smallest. Eight-bit values are taken as they are; others relative to the
            crop's own range.

    Raises:
        ImageError: there are no pixels.
    """
    parts = _families(find_foreground(pixels))
    joined = np.concatenate(list(parts.values()))
    finite = np.nan_to_num(joined, nan=0.0, posinf=LARGEST, neginf=-LARGEST)
    return np.asarray(finite.clip(-LARGEST, LARGEST), np.float32)


def embedder_sha256() -> str:
    """Return the hash that names this embedder: vectors of equal hashes may be compared."""
    return hashlib.sha256(f"{NAME}/{REVISION}/{DIMENSION}".encode()).hexdigest()


def _families(foreground: Foreground) -> dict[str, FloatArray]:
    body, whole = measure_mask(foreground.body), measure_mask(foreground.whole)
    of_object, of_crop = describe_covariance(foreground)
    return {
        "size": np.concatenate([describe_size(body, foreground.scale), _crop_size(foreground)]),
        "whole size": describe_size(whole, foreground.scale),
        "shape": describe_shape(body),
        "whole shape": describe_shape(whole),
        "outline": describe_outline(whole.outline),
        "intensity": describe_intensity(foreground),
        "colour": describe_colour(foreground),
        "patterns": describe_patterns(foreground),
        "covariance": of_object,
        "crop covariance": of_crop,
        "scattering": describe_scattering(foreground),
        "template": describe_template(foreground),
        "symmetry": describe_symmetry(foreground),
    }


def _crop_size(foreground: Foreground) -> FloatArray:
    """Return the crop's longer and shorter side (logarithms), and the share the body covers."""
    sides = sorted((foreground.height, foreground.width), reverse=True)
    return np.array([*np.log(sides), foreground.body.mean()], np.float32)


def _groups() -> Mapping[str, slice]:
    probe = _families(find_foreground(np.zeros((1, 1, 1), np.uint8)))
    ends = np.cumsum([0, *(len(part) for part in probe.values())]).tolist()
    bounds = pairwise(ends)
    return MappingProxyType(
        {name: slice(start, stop) for name, (start, stop) in zip(probe, bounds, strict=True)}
    )


GROUPS: Final = _groups()
"""Where each family of descriptors lies in a description."""

DIMENSION: Final = max(part.stop for part in GROUPS.values())
