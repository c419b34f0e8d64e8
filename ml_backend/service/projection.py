"""Embeddings laid out in the plane, for a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

T_SNE, PRINCIPAL = "t-SNE", "principal components"
LARGEST_SAMPLE = 5000  # points; half a minute of t-SNE on one core, and a picture shows no more
COMPONENTS = 50  # principal ones that t-SNE starts from
PERPLEXITY = 30.0  # neighbours of a point that t-SNE keeps together


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Embeddings laid out in the plane."""

    points: FloatArray  # (M, 2): x and y in 0..1, the layout's proportions kept
    rows: IntArray  # (M,): which embeddings they are, ascending
    total: int  # embeddings there are; more than M where a sample was taken
    method: str  # T_SNE or PRINCIPAL, for a person


def projection(
    embeddings: FloatArray, *, seed: int = 0, largest: int = LARGEST_SAMPLE
) -> Projection:
    """Return `embeddings` in the plane: principal components, then t-SNE started from them.

    The same embeddings and seed give the same picture. Up to three embeddings, and those that
    are all alike, are laid out by their principal components.

    Args:
        embeddings: (N, D) finite, scaled as the clustering sees them.
        seed: of the sample and of t-SNE.
        largest: of more embeddings a random sample of that many is laid out.
    """
    total = len(embeddings)
    rows = np.arange(total, dtype=np.int64)
    if total > largest:
        rows = np.sort(np.random.default_rng(seed).choice(rows, largest, replace=False))
    components = _principal(np.asarray(embeddings[rows], np.float64))
    spread = float(components[:, 0].std()) if len(rows) else 0.0
    method = PRINCIPAL
    if len(rows) > 3 and spread > 0:
        from sklearn.manifold import TSNE  # takes a second, and is needed here only

        layout = TSNE(
            perplexity=min(PERPLEXITY, (len(rows) - 1) / 3),
            init=np.asarray(components[:, :2] / spread * 1e-4, np.float32),
            random_state=seed,
        ).fit_transform(np.asarray(components, np.float32))
        method = T_SNE
    else:
        layout = components[:, :2]
    return Projection(points=_fitted(layout), rows=rows, total=total, method=method)


def _principal(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return (N, K) with 2 <= K <= COMPONENTS, the largest variance first, signs made definite."""
    count, size = values.shape
    if count == 0 or size == 0:
        return np.zeros((count, 2))
    centred = values - values.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    directions = directions[:, ::-1][:, :COMPONENTS]
    strongest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[strongest, np.arange(directions.shape[1])])
    components: npt.NDArray[np.float64] = centred @ directions
    # of images that are all alike nothing remains but rounding, which is no direction
    components[np.abs(components) < 1e-9 * max(1.0, float(np.abs(values).max()))] = 0.0
    if components.shape[1] == 1:
        return np.pad(components, ((0, 0), (0, 1)))
    return components


def _fitted(layout: npt.NDArray[np.floating]) -> FloatArray:
    """Return (N, 2) moved and scaled, both axes alike, into 0..1."""
    if not len(layout):
        return np.zeros((0, 2), np.float32)
    low, high = layout.min(axis=0), layout.max(axis=0)
    half = float((high - low).max()) / 2 or 1.0
    unit = 0.5 + (layout - (low + high) / 2) / (2 * half)
    return np.asarray(np.clip(unit, 0, 1), np.float32)  # rounding leads a hair beyond
