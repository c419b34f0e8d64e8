"""Which annotations of a task count, where several people have annotated it."""

from __future__ import annotations

from collections.abc import Sequence

from ml_backend.learning import Annotation, Multiple


def choose_annotations(annotations: Sequence[Annotation], multiple: Multiple) -> list[Annotation]:
    """Return those annotations of one task that count."""
    alive = [annotation for annotation in annotations if not annotation.cancelled]
    if multiple is Multiple.ALL or not alive:
        return sorted(alive, key=lambda annotation: annotation.annotation_id)
    return [
        max(
            alive,
            key=lambda annotation: (
                annotation.ground_truth,
                annotation.updated_at,
                annotation.annotation_id,
            ),
        )
    ]
