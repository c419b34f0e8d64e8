"""Where an object's parts lie, seen along its principal axis."""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from ml_backend.engines.descriptor_foreground import Foreground

FloatArray = npt.NDArray[np.float32]

REACH: Final = 2.6  # standard deviations along the long axis that a template spans each way
TEMPLATE_EDGE: Final = 64  # pixels, aligned
TEMPLATE_CELLS: Final = 12
PROFILE_BINS: Final = 16
LOPSIDED_POWER: Final = 3  # of the distance: far parts (tails, antennae) decide which end is which

POLAR_REACH: Final = 3.0  # standard deviations along the long axis
RINGS: Final = 8
RING_SAMPLES: Final = 4
ANGLES: Final = 64
ANGULAR_FREQUENCIES: Final = 8


def describe_template(foreground: Foreground) -> FloatArray:
    """Return the crop turned to its principal axis, small, and its profiles, (176,).

    The end with the farther-reaching parts lies right and below, so that turned and mirrored crops
    come out alike. Square roots keep faint parts in view.
    """
    aligned = _aligned(foreground)
    cells = cv2.resize(aligned, (TEMPLATE_CELLS, TEMPLATE_CELLS), interpolation=cv2.INTER_AREA) / (
        float(foreground.contrast.max()) + 1e-9
    )
    profiles = np.stack([aligned.sum(axis=0), aligned.sum(axis=1)])
    profiles /= profiles.sum(axis=1, keepdims=True) + 1e-9
    binned = profiles.reshape(2, PROFILE_BINS, -1).sum(axis=2)
    return np.asarray(np.sqrt(np.concatenate([cells.ravel(), binned.ravel()]).clip(0)), np.float32)


def describe_symmetry(foreground: Foreground) -> FloatArray:
    """Return how many arms there are on each ring around the centre, (64,).

    Zhang & Lu 2002, "Shape-based image retrieval using generic Fourier descriptor": the magnitudes
    of the Fourier series in angle, relative to the ring's mean; rotation and mirroring change none.
    """
    axes = foreground.axes
    unrolled = cv2.warpPolar(
        foreground.contrast,
        (RINGS * RING_SAMPLES, ANGLES),
        (axes.column, axes.row),
        POLAR_REACH * axes.major,
        cv2.WARP_POLAR_LINEAR | cv2.WARP_FILL_OUTLIERS,
    )
    rings = unrolled.reshape(ANGLES, RINGS, RING_SAMPLES).mean(axis=2)
    series = np.abs(np.fft.rfft(rings, axis=0)) / ANGLES
    relative = series[1 : ANGULAR_FREQUENCIES + 1] / (series[0] + 0.01)
    return np.asarray(relative.ravel(), np.float32)


def _aligned(foreground: Foreground) -> FloatArray:
    """Return the contrast along the principal axes, (TEMPLATE_EDGE, TEMPLATE_EDGE)."""
    axes = foreground.axes
    step = 2 * REACH * axes.major / TEMPLATE_EDGE  # pixels of the crop per pixel here
    along, beside = math.cos(axes.angle) * step, math.sin(axes.angle) * step
    middle = (TEMPLATE_EDGE - 1) / 2
    to_crop = np.array(
        [
            [along, -beside, axes.column - (along - beside) * middle],
            [beside, along, axes.row - (beside + along) * middle],
        ],
        np.float32,
    )
    contrast = foreground.contrast
    if step > 1.5:  # else pixels between those that are looked at would not count
        contrast = cv2.GaussianBlur(contrast, (0, 0), 0.4 * step)
    aligned = cv2.warpAffine(
        contrast,
        to_crop,
        (TEMPLATE_EDGE, TEMPLATE_EDGE),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    )
    far = np.sign(offsets := np.arange(TEMPLATE_EDGE) - middle) * np.abs(offsets) ** LOPSIDED_POWER
    if float(aligned.sum(axis=0) @ far) < 0:
        aligned = aligned[:, ::-1]
    if float(aligned.sum(axis=1) @ far) < 0:
        aligned = aligned[::-1]
    return np.ascontiguousarray(aligned, np.float32)
