"""What a project's `Choices` controls are answered with. Needs no scikit-learn.

`engines.classifier_file` writes and reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_backend.engines.clustering import NO_CLUSTER, Clustering, ClusterName, assign
from ml_backend.engines.heads import Decision, Head, decide
from ml_backend.engines.scaling import Scaling
from ml_backend.errors import ModelError, NotFound

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ControlModel:
    """What one `Choices` control is answered with."""

    classes: tuple[str, ...]  # the values of the control, in the config's order
    multiple: bool  # an item may have several
    head: Head | None  # None: nothing is labelled yet, so it abstains
    clustering: Clustering | None
    cluster_names: Mapping[int, ClusterName]  # by identity; clusters without labels are missing


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a control's model says about items."""

    decisions: tuple[Decision, ...]
    probabilities: FloatArray  # (N, C) in 0..1; 0 everywhere where nothing is known
    classes: tuple[str, ...]  # of the columns
    clusters: IntArray  # (N,) identities, `NO_CLUSTER` where there is none
    distances: FloatArray  # (N,) to the cluster's centre, infinite where there is none


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """From embeddings to the answers of all `Choices` controls of a project."""

    embedder: str  # name of what made the embeddings
    embedder_sha256: str
    scaling: Scaling
    controls: Mapping[str, ControlModel]  # by control name

    def answer(self, control: str, embeddings: FloatArray, *, unsure_below: float = 0.0) -> Answers:
        """Return the answers of one control.

        Args:
            control: its name.
            embeddings: (N, D) float32 as the embedder made them. One that is not finite gets no
                answer and no cluster.
            unsure_below: abstain where the score is lower, 0..1.

        Raises:
            NotFound: there is no such control.
            ModelError: the embeddings are another embedder's.
        """
        model = self.controls.get(control)
        if model is None:
            raise NotFound(f"This classifier has no control {control!r}; train it again.")
        if embeddings.ndim != 2 or embeddings.shape[1] != self.scaling.dimension:
            raise ModelError(
                f"The classifier was trained on embeddings of {self.scaling.dimension} numbers by "
                f"{self.embedder!r}, these have the shape {embeddings.shape}; train it again."
            )
        good = np.asarray(np.isfinite(embeddings).all(axis=1), bool)
        points = self.scaling.apply(np.where(good[:, None], embeddings, 0).astype(np.float32))
        rows, distances = _nearest(points, model.clustering)
        rows[~good], distances[~good] = NO_CLUSTER, np.inf
        probabilities: FloatArray = np.zeros((len(points), len(model.classes)), np.float32)
        if model.head is not None and len(points):
            probabilities = model.head.predict(points, rows).probabilities
            probabilities[~good] = 0
        decisions = decide(
            probabilities, model.classes, multiple=model.multiple, unsure_below=unsure_below
        )
        unknown = Decision(choices=(), score=0.0)
        known = good if model.head is not None else np.zeros(len(points), bool)
        return Answers(
            decisions=tuple(
                decision if is_known else unknown
                for decision, is_known in zip(decisions, known.tolist(), strict=True)
            ),
            probabilities=probabilities,
            classes=model.classes,
            clusters=_identities(rows, model.clustering),
            distances=distances,
        )


def _nearest(points: FloatArray, clustering: Clustering | None) -> tuple[IntArray, FloatArray]:
    if clustering is None:
        return np.full(len(points), NO_CLUSTER), np.full(len(points), np.inf, np.float32)
    return assign(points, clustering)


def _identities(rows: IntArray, clustering: Clustering | None) -> IntArray:
    if clustering is None:
        return rows
    return np.append(clustering.identities, NO_CLUSTER)[rows]
