"""How one control's candidate and what is served answer for the images that are held out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ml_backend.domain import ChoicesControl
from ml_backend.engines.classifier import Classifier
from ml_backend.training.choices_gate import (
    ControlTrial,
    Marks,
    commonest_answer,
    marks_of,
    score_of,
)
from ml_backend.training.chosen_images import ChoicesDataset, ChosenImage


def control_trial(
    control: ChoicesControl,
    candidate: Classifier,
    served: Classifier | None,
    dataset: ChoicesDataset,
) -> ControlTrial:
    """Return what the gate judges of one control.

    Args:
        control: which one.
        candidate: what was learned now.
        served: what the control is served with; None: nothing that was learned.
        dataset: the labelled images of both sides.
    """
    name, choices, multiple = control.name, control.choices, control.multiple
    training = [image for image in dataset.training if name in image.chosen]
    hold_out = [image for image in dataset.hold_out if name in image.chosen]
    learned_from = marks_of([image.chosen[name] for image in training], choices)
    answers = served is not None and served.controls[name].head is not None
    head = candidate.controls[name].head

    def marks(classifier: Classifier) -> Marks:
        if not hold_out:
            return marks_of([], choices)
        found = classifier.answer(name, embeddings_of(hold_out))
        return marks_of([decision.choices for decision in found.decisions], choices)

    return ControlTrial(
        name=name,
        multiple=multiple,
        truth=marks_of([image.chosen[name] for image in hold_out], choices),
        candidate=marks(candidate),
        active=marks(served) if served is not None and answers else None,
        commonest=commonest_answer(learned_from, len(hold_out), multiple=multiple),
        trained_on=len(training),
        cross_validated=None if head is None else head.report.scores.get(head.kind),
        commonest_cross_validated=score_of(
            learned_from,
            commonest_answer(learned_from, len(training), multiple=multiple),
            multiple=multiple,
        ),
        claims=head is not None,
        has_clusters=served is not None and bool(dataset.training or dataset.hold_out),
    )


def embeddings_of(images: Sequence[ChosenImage]) -> npt.NDArray[np.float32]:
    """Return the embeddings (N, D) of labelled images, at least one."""
    return np.stack([image.embedding for image in images])
