"""Size, shape and outline of masks, as numbers for comparing objects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from skimage.morphology import skeletonize

from ml_backend.engines.descriptor_foreground import Mask, PrincipalAxes, principal_axes

FloatArray = npt.NDArray[np.float32]
Contour = npt.NDArray[np.int32]  # (N, 1, 2) as OpenCV has them: column, row

DEFECTS: Final = 4  # deepest dents of the outline that count
HARMONICS: Final = 16
OUTLINE_POINTS: Final = 128
SMALLEST_HARMONIC: Final = 0.003  # of the first; below it the pixels' staircase is what one sees
TURNING_SPANS: Final = (1 / 64, 1 / 32, 1 / 16, 1 / 8)  # of the outline's length
TURNING_PERCENTILES: Final = (5, 25, 50, 75, 95)
SHORTEST_OUTLINE: Final = 16  # points


@dataclass(frozen=True, kw_only=True)
class MaskMeasures:
    """What is measured once of a mask, in pixels."""

    mask: Mask
    area: float
    parts: npt.NDArray[np.float64]  # areas of the connected parts, largest first
    outlines: Sequence[Contour]
    holes: Sequence[Contour]
    outline: Contour | None  # of the largest part
    hull_area: float
    hull_length: float
    box_long: float  # sides of the smallest rectangle around it
    box_short: float
    depths: npt.NDArray[np.float64]  # distance to the outside of each pixel of the mask
    thickness: npt.NDArray[np.float64]  # the same, along the skeleton
    skeleton_ends: int
    skeleton_branches: int
    axes: PrincipalAxes


def measure_mask(mask: Mask) -> MaskMeasures:
    """Return the measures of `mask: (Y, X)`, which may be empty."""
    filled = mask.astype(np.uint8)
    contours, hierarchy = cv2.findContours(filled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    is_hole = hierarchy[0][:, 3] >= 0 if len(contours) else np.zeros(0, np.bool_)
    outlines = [one for one, hole in zip(contours, is_hole, strict=True) if not hole]
    _, _, statistics, _ = cv2.connectedComponentsWithStats(filled, connectivity=8)
    points = np.argwhere(mask)[:, ::-1].astype(np.float32)
    if len(points) == 0:
        points = np.zeros((1, 2), np.float32)
    hull = cv2.convexHull(points)
    _, (width, height), _ = cv2.minAreaRect(points)
    distance = cv2.distanceTransform(np.pad(filled, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    skeleton = np.asarray(skeletonize(mask), np.bool_) if mask.any() else mask
    neighbours = cv2.filter2D(
        skeleton.astype(np.float32), -1, np.ones((3, 3), np.float32), borderType=cv2.BORDER_CONSTANT
    )[skeleton]
    return MaskMeasures(
        mask=mask,
        area=float(mask.sum()),
        parts=np.sort(statistics[1:, cv2.CC_STAT_AREA].astype(np.float64))[::-1],
        outlines=outlines,
        holes=[one for one, hole in zip(contours, is_hole, strict=True) if hole],
        outline=max(outlines, key=cv2.contourArea) if outlines else None,
        hull_area=cv2.contourArea(hull) + 1,
        hull_length=cv2.arcLength(hull, True) + 1,
        box_long=max(width, height) + 1,
        box_short=min(width, height) + 1,
        depths=_or_nothing(distance[mask]),
        thickness=_or_nothing(distance[skeleton]),
        skeleton_ends=int((neighbours == 2).sum()),  # itself and one more
        skeleton_branches=int((neighbours >= 4).sum()),
        axes=principal_axes(mask),
    )


def describe_size(measures: MaskMeasures, scale: float) -> FloatArray:
    """Return logarithms of lengths and areas, (11,), in pixels of the crop as it came.

    Args:
        measures: of the mask.
        scale: pixels as they came per pixel measured in.
    """
    length = math.log(scale)
    perimeter = _lengths(measures.outlines)
    return np.array(
        [
            math.log(measures.area + 1) + 2 * length,
            math.log(measures.area + _hole_area(measures) + 1) + 2 * length,
            math.log(measures.hull_area) + 2 * length,
            math.log(perimeter + 1) + length,
            math.log(measures.box_long) + length,
            math.log(measures.box_short) + length,
            math.log(measures.axes.major) + length,
            math.log(measures.axes.minor) + length,
            math.log(len(measures.thickness) + 1) + length,
            math.log(measures.thickness.mean() + 1) + length,
            math.log(measures.depths.max() + 1) + length,
        ],
        np.float32,
    )


def describe_shape(measures: MaskMeasures) -> FloatArray:
    """Return ratios that do not change with size or orientation, (41,).

    The usual ones of particle analysis (solidity, circularity, convexity, elongation, holes),
    statistics of thickness and skeleton, the deepest dents, and Hu's moments (1962, "Visual Pattern
    Recognition by Moment Invariants"), the last without its sign, which tells left from right.
    """
    perimeter = _lengths(measures.outlines)
    hole_length, hole_area = _lengths(measures.holes), _hole_area(measures)
    area, diameter = measures.area, math.sqrt(measures.area + 1)
    skeleton = float(len(measures.thickness))
    thickest = float(measures.thickness.max()) + 1e-6
    dents = _deepest_dents(measures.outline)
    ratios = [
        area / measures.hull_area,
        (area + hole_area) / measures.hull_area,
        measures.box_short / measures.box_long,
        measures.axes.minor / measures.axes.major,
        area / (measures.box_long * measures.box_short),
        4 * math.pi * area / (perimeter + 1) ** 2,
        4 * math.pi * measures.hull_area / measures.hull_length**2,
        measures.hull_length / (perimeter + 1),
        math.log1p(len(measures.holes)),
        hole_area / (area + hole_area + 1),
        math.log1p(hole_length) - math.log1p(perimeter),
        math.log1p(len(measures.parts)),
        float(measures.parts[0]) / (area + 1) if len(measures.parts) else 0.0,
        math.log1p(measures.skeleton_ends),
        math.log1p(measures.skeleton_branches),
        skeleton / diameter,
        math.log(skeleton / measures.box_long + 0.1),
        measures.skeleton_ends / skeleton,
        measures.skeleton_branches / skeleton,
        float(measures.depths.mean()) / diameter,
        float(measures.depths.max()) / diameter,
        float(measures.depths.std() / (measures.depths.mean() + 1e-6)),
        float(measures.thickness.std() / (measures.thickness.mean() + 1e-6)),
        float(np.percentile(measures.thickness, 10)) / thickest,
        float(np.median(measures.thickness)) / thickest,
        *np.log1p(dents),
        *(dents / measures.box_long),
        dents[1] / (dents[0] + 1),
    ]
    return np.array([*ratios, *_hu_moments(measures.mask)], np.float32)


def describe_outline(outline: Contour | None) -> FloatArray:
    """Return the Fourier and turning descriptors of a closed outline, (56,); 0 where it is tiny."""
    harmonics, turning = 2 * HARMONICS, len(TURNING_SPANS) * (len(TURNING_PERCENTILES) + 1)
    if outline is None or len(outline) < SHORTEST_OUTLINE:
        return np.zeros(harmonics + turning, np.float32)
    points = outline[:, 0, :].astype(np.float64)
    return np.concatenate([_fourier(points), _turning(points)]).astype(np.float32)


def _fourier(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return elliptic Fourier magnitudes, (2 x HARMONICS,).

    Granlund 1972, "Fourier Preprocessing for Hand Print Character Recognition": the outline as a
    complex function of its length; magnitudes do not change with the starting point and rotation,
    and mirroring swaps the two of a harmonic, so that the larger and the smaller are taken.
    """
    line = points[:, 0] + 1j * points[:, 1]
    steps = np.abs(np.diff(np.append(line, line[0])))
    along = np.append(0, np.cumsum(steps))
    at = np.linspace(0, along[-1], OUTLINE_POINTS, endpoint=False)
    closed = np.append(line, line[0])
    even = np.interp(at, along, closed.real) + 1j * np.interp(at, along, closed.imag)
    magnitudes = np.abs(np.fft.fft(even - even.mean()))
    first = max(magnitudes[1], magnitudes[-1], 1e-9)
    forward = magnitudes[1 : HARMONICS + 1] / first
    backward = magnitudes[-HARMONICS:][::-1] / first
    both = np.concatenate([np.maximum(forward, backward), np.minimum(forward, backward)])
    return np.asarray(np.log(both + SMALLEST_HARMONIC))


def _turning(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return how sharply the outline turns over spans of its length: percentiles and spread."""
    found: list[float] = []
    for span in TURNING_SPANS:
        step = max(2, int(len(points) * span))
        ahead = np.roll(points, -step, axis=0) - points
        behind = points - np.roll(points, step, axis=0)
        cross = behind[:, 0] * ahead[:, 1] - behind[:, 1] * ahead[:, 0]
        turn = np.arctan2(cross, (behind * ahead).sum(axis=1))
        if turn.mean() < 0:  # the other way round
            turn = -turn
        found += [*np.percentile(turn, TURNING_PERCENTILES), float(turn.std())]
    return np.array(found)


def _deepest_dents(outline: Contour | None) -> npt.NDArray[np.float64]:
    """Return the depths of the deepest convexity defects, (DEFECTS,) in pixels, deepest first."""
    depths = np.zeros(DEFECTS)
    if outline is None or len(outline) <= 5:
        return depths
    try:
        hull = cv2.convexHull(outline, returnPoints=False)
        defects = cv2.convexityDefects(outline, hull)
    except cv2.error:  # an outline that touches itself has no hull in the order of its points
        return depths
    if defects is not None:
        deepest = np.sort(defects[:, 0, 3] / 256)[::-1][:DEFECTS]  # OpenCV's fixed point
        depths[: len(deepest)] = deepest
    return depths


def _hu_moments(mask: Mask) -> npt.NDArray[np.float64]:
    moments = cv2.HuMoments(cv2.moments(mask.astype(np.uint8), binaryImage=True)).ravel()
    logarithms = np.sign(moments) * np.log1p(1e4 * np.abs(moments))
    logarithms[6] = abs(logarithms[6])
    return np.asarray(logarithms)


def _lengths(contours: Sequence[Contour]) -> float:
    return float(sum(cv2.arcLength(one, True) for one in contours))


def _hole_area(measures: MaskMeasures) -> float:
    return float(sum(cv2.contourArea(one) for one in measures.holes))


def _or_nothing(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return values.astype(np.float64) if values.size else np.zeros(1)
