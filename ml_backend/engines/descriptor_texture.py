"""What an object's surface looks like at several scales, whatever its orientation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from ml_backend.engines.descriptor_foreground import Foreground, Mask

FloatArray = npt.NDArray[np.float32]

MARGIN: Final = 16  # pixels that a crop is continued by, so that filters see no edge of the image

PATTERN_RADII: Final = ((1, 0.0), (1.5, 0.6), (2, 0.8), (3, 1.2), (4, 1.6), (6, 2.4), (9, 3.6))
"""Radius and smoothing (standard deviation) of local binary patterns, pixels."""
PATTERN_POINTS: Final = 8
PATTERN_STEP: Final = 4 / 255  # of the full range; a smaller difference is none

DERIVATIVE_SCALES: Final = (0.7, 1.4, 2.8, 5.6)  # standard deviations, pixels
SMALLEST_VARIANCE: Final = 1e-5  # of contrast; keeps a flat object's logarithm finite

ORIENTATIONS: Final = 6
LEVELS: Final = 4  # each has half the size of the one before
GABOR_SIGMA: Final = 1.2  # pixels
GABOR_FREQUENCY: Final = 2.2 / 1.2  # radians per pixel
GABOR_SLANT: Final = 0.6  # of its width to its length
LARGEST_SCATTERED: Final = 160  # pixels
HALVING_SIGMA: Final = 0.8  # pixels; smooths what half the resolution cannot show
HALVED_TO: Final = 2**LEVELS  # pixels; a side of it can be halved before the first level, too

HISTOGRAM_BINS: Final = 10
RELATIVE_BINS: Final = 8


def describe_patterns(foreground: Foreground) -> FloatArray:
    """Return the histograms of local binary patterns in and around the body, (70,).

    Ojala et al. 2002, "Multiresolution Gray-Scale and Rotation Invariant Texture Classification
    with Local Binary Patterns": eight points, uniform, rotation-invariant; square roots, so that
    distances are Hellinger's. Differences under `PATTERN_STEP` count as none, else the background
    would be a pattern of noise.
    """
    contrast = _continued(foreground.contrast)
    around = _grown(np.pad(foreground.body, MARGIN), 5)
    found = []
    for radius, sigma in PATTERN_RADII:
        smooth = cv2.GaussianBlur(contrast, (0, 0), sigma) if sigma else contrast
        steps = np.round(smooth / np.float32(PATTERN_STEP))
        codes = _uniform_patterns(steps, radius, around)
        counts = np.bincount(codes, minlength=PATTERN_POINTS + 2)
        found.append(np.sqrt(counts / len(codes)))
    return _as_floats(found)


def describe_covariance(foreground: Foreground) -> tuple[FloatArray, FloatArray]:
    """Return how local structure varies together: (153,) of the object, (91,) of the crop.

    Tuzel et al. 2006, "Region Covariance", of contrast, and of gradient strength and the two
    curvatures at four scales, all invariant to rotation; as matrix logarithm (Arsigny et al. 2006,
    "Log-Euclidean Metrics"), whose entries can be compared as vectors. Of the object (its faint
    parts included) smoothed contrast counts as well.
    """
    contrast = _continued(foreground.contrast)
    smooth, structure = [], [contrast]
    for sigma in DERIVATIVE_SCALES:
        blurred = cv2.GaussianBlur(contrast, (0, 0), sigma)
        smooth.append(blurred)
        structure += _structure(blurred, sigma)
    area = _grown(np.pad(foreground.whole, MARGIN), 5)
    structures = np.stack(structure)
    inside = slice(MARGIN, -MARGIN)
    everywhere = structures[:, inside, inside].reshape(len(structures), -1)
    of_object = np.concatenate([structures[:, area], np.stack(smooth)[:, area]])
    return _log_covariance(of_object), _log_covariance(everywhere)


def describe_scattering(foreground: Foreground) -> FloatArray:
    """Return what oriented filters answer, and what they answer to the answers, (48,).

    A scattering transform of two layers (Bruna & Mallat 2013, "Invariant Scattering Convolution
    Networks") with Gabor filters on an image pyramid, summed over the crop per pixel of the object.
    Of the orientations only what no rotation changes is kept: of the first layer the magnitude of
    their Fourier series, of the second the angle between the two layers.
    """
    image = _continued_evenly(foreground.contrast)
    area = float(foreground.body.sum()) + 1
    while max(image.shape) > LARGEST_SCATTERED:
        image, area = _half(image), area / 4
    first: list[float] = []
    second: list[float] = []
    for level in range(LEVELS):
        answers = _gabor_magnitudes(image[..., None])  # (orientation, Y, X, 1)
        weight = 4.0**level / area
        series = np.abs(np.fft.rfft(answers.sum(axis=(1, 2, 3)) * weight))
        total = float(series[0])
        strongest, weakest, mean = answers.max(0), answers.min(0), answers.mean(0)
        usual = float(mean.sum()) + 1e-6
        first += [
            np.log(total + 1e-4),
            float(series[1]) / (total + 1e-6),
            float(series[2]) / (total + 1e-6),
            float(strongest.sum()) / usual,
            float(weakest.sum()) / usual,
            float(np.sqrt(np.square(mean).sum() * weight)) / (usual * weight + 1e-6),
        ]
        maps = np.ascontiguousarray(answers[..., 0].transpose(1, 2, 0))
        for coarser in range(level + 1, LEVELS):
            maps = _half(maps)
            again = _gabor_magnitudes(maps).sum(axis=(1, 2)) * (4.0**coarser / area)
            second += _by_angle_between(again, total)
        if level + 1 < LEVELS:
            image = _half(image)
    return np.array([*first, *second], np.float32)


def describe_intensity(foreground: Foreground) -> FloatArray:
    """Return how strongly the body differs from the background, (33,)."""
    contrast, body = foreground.contrast, foreground.body
    values = contrast[body] if body.any() else contrast.ravel()
    signed = foreground.difference.mean(axis=2)
    signed = signed[body] if body.any() else signed.ravel()
    across = cv2.Sobel(contrast, cv2.CV_32F, 1, 0) / 8
    down = cv2.Sobel(contrast, cv2.CV_32F, 0, 1) / 8
    gradient = np.hypot(across, down)
    rim = body & ~(cv2.erode(body.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
    spread = float(values.std())
    strongest = float(contrast.max())
    statistics = [
        *np.percentile(values, (5, 25, 50, 75, 95)),
        float(values.mean()),
        spread,
        float(signed.mean()),
        float(signed.std()),
        float(((values - values.mean()) ** 3).mean()) / (spread**3 + 1e-3),
        float(contrast[~body].std()) if not body.all() else 0.0,
        float(gradient[rim].mean()) if rim.any() else 0.0,
        float(gradient[body].mean()) if body.any() else 0.0,
        foreground.threshold,
        strongest,
    ]
    histogram = np.histogram(values, HISTOGRAM_BINS, (0, 1))[0]
    relative = np.histogram(values / (strongest + 1e-9), RELATIVE_BINS, (0, 1))[0]
    shares = np.sqrt(np.concatenate([histogram, relative]) / len(values))
    return _as_floats([np.array(statistics), shares])


def describe_colour(foreground: Foreground) -> FloatArray:
    """Return brightness and the two opponent colours of the body, and the background's, (15,).

    Of the first three channels, as red, green and blue; of gray images the colours are 0, and of
    two channels the mean stands in for the third. Percentiles 10 and 90 beside mean and spread.
    """
    background = _three(foreground.background[None])[0]
    difference = foreground.difference
    body = foreground.body if foreground.body.any() else np.ones_like(foreground.body)
    red, green, blue = _three(difference[body]).T
    opponent = np.stack([(red + green + blue) / 3, red - green, blue - (red + green) / 2])
    return _as_floats(
        [
            opponent.mean(axis=1),
            opponent.std(axis=1),
            np.percentile(opponent, (10, 90), axis=1).ravel(),
            np.array(
                [
                    background.mean(),
                    background[0] - background[1],
                    background[2] - (background[0] + background[1]) / 2,
                ]
            ),
        ]
    )


def _uniform_patterns(steps: FloatArray, radius: float, around: Mask) -> npt.NDArray[np.int64]:
    """Return the pattern of each pixel of `around`: how many points on its circle are no darker.

    0..PATTERN_POINTS where those lie side by side, else PATTERN_POINTS + 1.
    """
    height, width = steps.shape
    centre = steps[around]
    no_less = np.empty((PATTERN_POINTS, len(centre)), np.bool_)
    for point in range(PATTERN_POINTS):
        angle = 2 * np.pi * point / PATTERN_POINTS
        move = np.array(
            [[1, 0, radius * np.cos(angle)], [0, 1, radius * np.sin(angle)]], np.float32
        )
        moved = cv2.warpAffine(
            steps,
            move,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        no_less[point] = moved[around] >= centre
    changes = (no_less != np.roll(no_less, 1, axis=0)).sum(axis=0)
    return np.where(changes <= 2, no_less.sum(axis=0), PATTERN_POINTS + 1)


def _three(values: FloatArray) -> FloatArray:
    count = values.shape[1]
    if count >= 3:
        return values[:, :3]
    mean = values.mean(axis=1, keepdims=True)
    return np.concatenate([values, *[mean] * (3 - count)], axis=1)


def _structure(blurred: FloatArray, sigma: float) -> list[FloatArray]:
    """Return gradient strength and the larger and smaller curvature, for unit scale (Lindeberg)."""
    one, two = sigma / 8, sigma * sigma / 4  # Sobel's weights add up to 8 and 4
    across = cv2.Sobel(blurred, cv2.CV_32F, 1, 0) * one
    down = cv2.Sobel(blurred, cv2.CV_32F, 0, 1) * one
    xx = cv2.Sobel(blurred, cv2.CV_32F, 2, 0) * two
    yy = cv2.Sobel(blurred, cv2.CV_32F, 0, 2) * two
    xy = cv2.Sobel(blurred, cv2.CV_32F, 1, 1) * two
    difference = np.sqrt((xx - yy) ** 2 + 4 * xy**2)
    return [np.hypot(across, down), (xx + yy + difference) / 2, (xx + yy - difference) / 2]


def _log_covariance(samples: FloatArray) -> FloatArray:
    """Return the upper triangle of the logarithm of the covariance of `samples: (F, N)`."""
    count, observed = samples.shape
    covariance = np.cov(samples, dtype=np.float64) if observed > 1 else np.zeros((count, count))
    values, vectors = np.linalg.eigh(covariance + SMALLEST_VARIANCE * np.eye(count))
    logarithm = (vectors * np.log(np.maximum(values, SMALLEST_VARIANCE / 2))) @ vectors.T
    rows, columns = np.triu_indices(count)
    # off the diagonal sqrt(2), so that the vector is as long as the matrix
    weights = np.where(rows == columns, 1.0, np.sqrt(2.0))
    return _as_floats([logarithm[rows, columns] * weights])


@lru_cache(maxsize=1)
def _gabor_filters() -> tuple[tuple[FloatArray, FloatArray], ...]:
    """Return the even and odd filter of each orientation; each answers 0 to what is flat."""
    reach = int(np.ceil(3 * GABOR_SIGMA))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    filters = []
    for index in range(ORIENTATIONS):
        angle = np.pi * index / ORIENTATIONS
        along = x * np.cos(angle) + y * np.sin(angle)
        beside = -x * np.sin(angle) + y * np.cos(angle)
        envelope = np.exp(-(along**2 + (GABOR_SLANT * beside) ** 2) / (2 * GABOR_SIGMA**2))
        wave = envelope * np.exp(1j * GABOR_FREQUENCY * along)
        wave -= envelope * (wave.sum() / envelope.sum())
        wave /= np.abs(wave).sum()
        filters.append((wave.real.astype(np.float32), wave.imag.astype(np.float32)))
    return tuple(filters)


def _gabor_magnitudes(maps: FloatArray) -> FloatArray:
    """Return the strength of each orientation in `maps: (Y, X, M)`, (orientation, Y, X, M)."""
    edge = cv2.BORDER_REPLICATE
    answers = [
        np.hypot(
            cv2.filter2D(maps, -1, even, borderType=edge),
            cv2.filter2D(maps, -1, odd, borderType=edge),
        ).reshape(maps.shape)
        for even, odd in _gabor_filters()
    ]
    return np.stack(answers)


def _by_angle_between(again: FloatArray, total: float) -> list[float]:
    """Return the second layer, (second, first) orientation, by the angle between the two."""
    turned = np.mean([np.roll(again[:, first], -first) for first in range(ORIENTATIONS)], axis=0)
    mirrored = (turned + np.roll(turned[::-1], 1)) / 2
    kept = mirrored[: ORIENTATIONS // 2 + 1]
    return [float(value) for value in np.log(kept / (total / ORIENTATIONS + 1e-6) + 1e-3)]


def _as_floats(parts: Sequence[npt.NDArray[Any]]) -> FloatArray:
    return np.asarray(np.concatenate(parts), np.float32)


def _half(maps: FloatArray) -> FloatArray:
    """Return `maps`, (Y, X) or (Y, X, M) of even size, at half of it."""
    blurred = cv2.GaussianBlur(maps, (0, 0), HALVING_SIGMA).reshape(maps.shape)
    even, odd = blurred[::2], blurred[1::2]
    return np.asarray((even[:, ::2] + even[:, 1::2] + odd[:, ::2] + odd[:, 1::2]) / np.float32(4))


def _continued(image: FloatArray) -> FloatArray:
    return np.pad(image, MARGIN, mode="edge")


def _continued_evenly(image: FloatArray) -> FloatArray:
    """Return `image` continued so far that it can be halved again and again."""
    missing = [-(edge + MARGIN) % HALVED_TO for edge in image.shape]
    before = [MARGIN // 2 + more // 2 for more in missing]
    after = [MARGIN + more - first for more, first in zip(missing, before, strict=True)]
    return np.pad(image, list(zip(before, after, strict=True)), mode="edge")


def _grown(mask: Mask, edge: int) -> Mask:
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((edge, edge), np.uint8)) > 0
    return np.asarray(grown, np.bool_) if grown.any() else np.ones_like(mask)
