"""From an embedder's vectors to points whose distances mean something, fitted to a project.

Raw embeddings mix numbers of every range and say many things twice. k-means and heads want neither,
and get the same points: standardised by family, turned to principal axes, flattened, unit length.
Measured on plankton crops with the built-in descriptors: against standardising by family alone,
k-means gets an adjusted Rand index of 0.45 instead of 0.38, and the accuracy of a logistic
regression changes by less than 0.005.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]

OUTLIER: Final = 3.0  # standard deviations; farther is no farther
MOST_AXES: Final = 96  # of the points; more made no head better
FLATTENING: Final = 0.5  # 0 keeps the variance along an axis, 1 makes all alike
SMALLEST_SHARE: Final = 1e-6  # of the variance along the first axis; less is rounding
CONSTANT: Final = 1e-6  # of a column's magnitude; a column that varies less tells nothing
SMALLEST_LENGTH: Final = 1e-6  # of a point; a shorter one is rounding
FITTED_TO: Final = 20_000  # rows at most, evenly taken
_CHUNK: Final = 4096  # rows worked on at once


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Turns embeddings into points."""

    mean: FloatArray  # (D,)
    factor: FloatArray  # (D,) to standard deviations; 0 for a column that was constant
    weight: FloatArray  # (D,) so that each family of columns has the same total variance
    centre: FloatArray  # (D,) mean of the standardised, clipped and weighted fit
    axes: FloatArray  # (D, d) principal axes, flattened

    @property
    def dimension(self) -> int:
        """Return the length D of the embeddings."""
        return len(self.mean)

    @property
    def width(self) -> int:
        """Return the length d of the points."""
        return self.axes.shape[1]

    def apply(self, embeddings: npt.NDArray[np.floating[Any]]) -> FloatArray:
        """Return the points (N, d) of `embeddings: (N, D)`, float32, of unit length.

        Unit length makes Euclidean distance that of the angle, so that an unusual object counts as
        much as a usual one. What lies in the middle of the project has the length 0 instead.
        """
        points = np.empty((len(embeddings), self.width), np.float32)
        for start in range(0, len(embeddings), _CHUNK):
            some = slice(start, start + _CHUNK)
            points[some] = self._points(np.asarray(embeddings[some], np.float64))
        return points

    def _points(self, embeddings: DoubleArray) -> DoubleArray:
        standard = _standardised(embeddings, self.mean, self.factor, self.weight)
        points = (standard - self.centre) @ self.axes.astype(np.float64)
        lengths = np.linalg.norm(points, axis=1, keepdims=True)
        unit: DoubleArray = points / np.where(lengths > SMALLEST_LENGTH, lengths, np.inf)
        return unit

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return everything by name, for a file."""
        return {
            "mean": self.mean,
            "factor": self.factor,
            "weight": self.weight,
            "centre": self.centre,
            "axes": self.axes,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Scaling:
        """Return what `to_arrays` gave.

        Raises:
            ValueError: an array is missing, not finite, or its shape does not go with the others'.
        """
        names = ("mean", "factor", "weight", "centre", "axes")
        if missing := [name for name in names if name not in arrays]:
            raise ValueError(f"the scaling lacks {', '.join(missing)}")
        taken = {name: np.asarray(arrays[name], np.float32) for name in names}
        *vectors, axes = (taken[name].shape for name in names)
        if len(set(vectors)) != 1 or len(vectors[0]) != 1 or len(axes) != 2:
            raise ValueError("the arrays of the scaling have shapes that do not go together")
        if axes[0] != vectors[0][0] or axes[1] < 1:
            raise ValueError("the axes of the scaling do not go with its mean")
        if not all(np.isfinite(array).all() for array in taken.values()):
            raise ValueError("the scaling has numbers that are not finite")
        return cls(**taken)


def fit_scaling(
    embeddings: npt.NDArray[np.floating[Any]],
    *,
    groups: Mapping[str, slice] | None = None,
    most_axes: int = MOST_AXES,
) -> Scaling:
    """Return the scaling for the images of a project.

    Columns are standardised and clipped, families weighted to equal variance, and all turned to
    their principal axes (Pearson 1901), along which the variance is flattened to its square root:
    half the way to whitening, which lifts what is rare without lifting noise. Of one image, or of
    equal ones, nothing is known of what varies: all points are then 0.

    Args:
        embeddings: (N, D), N >= 1, finite.
        groups: columns of each family of descriptors, as `descriptors.GROUPS`; None = one family.
        most_axes: of the points, at least 1.

    Raises:
        ValueError: there are no embeddings, or one is not finite.
    """
    if embeddings.ndim != 2 or 0 in embeddings.shape:
        raise ValueError(f"embeddings of the shape {embeddings.shape} cannot be scaled")
    rows = embeddings[:: -(-len(embeddings) // FITTED_TO)]
    if not np.isfinite(rows).all():
        raise ValueError("embeddings must be finite")
    mean = rows.mean(axis=0, dtype=np.float64)
    deviation = np.sqrt(_mean_square(rows, mean))
    # by the column's magnitude, because rounding alone makes a large constant vary
    varies = deviation > CONSTANT * np.maximum(1.0, np.abs(mean))
    factor = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
    weight = _family_weights(varies, groups)
    centre, covariance = _moments(rows, mean, factor, weight)
    axes = _flattened_axes(covariance, min(most_axes, max(1, len(rows) - 1)))
    return Scaling(
        mean=mean.astype(np.float32),
        factor=factor.astype(np.float32),
        weight=weight.astype(np.float32),
        centre=centre.astype(np.float32),
        axes=axes.astype(np.float32),
    )


def _standardised(
    rows: DoubleArray,
    mean: npt.NDArray[np.floating[Any]],
    factor: npt.NDArray[np.floating[Any]],
    weight: npt.NDArray[np.floating[Any]],
) -> DoubleArray:
    standard = rows - mean
    standard *= factor
    np.clip(standard, -OUTLIER, OUTLIER, out=standard)
    standard *= weight
    return standard


def _family_weights(
    varies: npt.NDArray[np.bool_], groups: Mapping[str, slice] | None
) -> DoubleArray:
    weight = np.zeros(len(varies))
    for columns in (groups or {"all": slice(None)}).values():
        weight[columns] = 1 / np.sqrt(max(1, int(varies[columns].sum())))
    return weight


def _chunks(rows: npt.NDArray[np.floating[Any]]) -> Iterator[DoubleArray]:
    for start in range(0, len(rows), _CHUNK):
        yield np.asarray(rows[start : start + _CHUNK], np.float64)


def _mean_square(rows: npt.NDArray[np.floating[Any]], mean: DoubleArray) -> DoubleArray:
    total = np.zeros(len(mean))
    for some in _chunks(rows):
        total += np.square(some - mean).sum(axis=0)
    return total / len(rows)


def _moments(
    rows: npt.NDArray[np.floating[Any]], mean: DoubleArray, factor: DoubleArray, weight: DoubleArray
) -> tuple[DoubleArray, DoubleArray]:
    """Return mean (D,) and covariance (D, D) of the standardised rows."""
    total = np.zeros(len(mean))
    products = np.zeros((len(mean), len(mean)))
    for some in _chunks(rows):
        standard = _standardised(some, mean, factor, weight)
        total += standard.sum(axis=0)
        products += standard.T @ standard
    centre = total / len(rows)
    return centre, products / len(rows) - np.outer(centre, centre)


def _flattened_axes(covariance: DoubleArray, most: int) -> DoubleArray:
    """Return principal axes (D, d), each divided by its deviation to the power `FLATTENING`."""
    from scipy.linalg import eigh  # only what fits needs it

    size = len(covariance)
    wanted = min(most, size)
    variances, axes = eigh(covariance, subset_by_index=(size - wanted, size - 1))
    variances, axes = variances[::-1], axes[:, ::-1]
    if variances[0] <= 0:
        return np.zeros((size, 1))
    kept = variances > SMALLEST_SHARE * variances[0]
    variances, axes = variances[kept], axes[:, kept]
    # an axis has no sign of its own: the largest entry is made positive, on every machine
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.sign(axes[largest, np.arange(axes.shape[1])])
    flattened: DoubleArray = axes / variances ** (FLATTENING / 2)
    return flattened
