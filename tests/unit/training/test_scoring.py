"""How well a network's objects fit what people outlined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_backend.domain import (
    Component,
    Image,
    LabelImage,
    Segmentation,
    SegmentationOptions,
    Urgency,
)
from ml_backend.training.scoring import score, score_image
from tests.annotations_of import annotated, squares
from tests.label_images import blobs

COMPONENT = Component(
    name="cells", architecture="residual-unet", sha256="cafe", path="", licence="CC0-1.0"
)


class Answering:
    """A segmenter that finds what it was told to find in each image."""

    def __init__(self, answers: dict[str, tuple[LabelImage, list[float]]]) -> None:
        self._answers = answers

    def segment(
        self,
        image: Image,
        options: SegmentationOptions,
        *,
        component: Component,
        priority: Urgency,
    ) -> Segmentation:
        labels, scores = self._answers[image.sha256]
        return Segmentation(labels=labels, scores=np.array(scores, np.float32), diameter=10.0)


def test_the_precision_counts_hits_misses_and_false_alarms() -> None:
    image = annotated(squares((5, 5), (40, 40)))

    found = score_image(image, squares((5, 5), (70, 70)), "cafe")

    assert found.ap50 == found.ap75 == found.ap90 == pytest.approx(1 / 3)
    assert (found.objects, found.found) == (2, 2)


def test_objects_that_score_below_the_controls_threshold_do_not_count() -> None:
    image = annotated(squares((5, 5)))
    segmenter = Answering({"image 1": (squares((5, 5), (70, 70)), [0.9, 0.2])})

    (lenient,) = score(segmenter, COMPONENT, [image], SegmentationOptions())
    (strict,) = score(segmenter, COMPONENT, [image], SegmentationOptions(), score_threshold=0.5)

    assert lenient.ap50 == pytest.approx(0.5)
    assert strict.ap50 == 1.0


def test_an_image_without_objects_scores_one_only_when_nothing_is_found() -> None:
    empty = annotated(squares())

    assert score_image(empty, squares(), "cafe").ap50 == 1.0
    assert score_image(empty, squares((5, 5)), "cafe").ap50 == 0.0


def test_what_is_found_outside_of_the_finished_part_or_across_its_border_does_not_count() -> None:
    finished = np.zeros((100, 100), np.bool_)
    finished[:50] = True
    image = annotated(squares((5, 5)), finished=finished)

    found = score_image(image, squares((5, 5), (70, 70), (45, 5)), "cafe")

    assert found.ap90 == 1.0
    assert found.found == 1


def test_an_outlined_object_whose_prediction_crosses_the_border_is_a_hit() -> None:
    finished = np.zeros((100, 100), np.bool_)
    finished[:50] = True
    image = annotated(squares((40, 5)), finished=finished)

    found = score_image(image, squares((42, 5)), "cafe")

    assert found.ap50 == 1.0
    assert found.ap90 == 0.0


@given(
    truth=blobs(max_cells=12),
    seed=st.integers(0, 2**32 - 1),
    cut=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
@settings(max_examples=30, deadline=None)
def test_what_lies_wholly_in_the_unfinished_part_changes_no_score(
    truth: LabelImage, seed: int, cut: tuple[float, float]
) -> None:
    height, width = truth.shape
    finished = np.zeros(truth.shape, np.bool_)
    finished[: int(cut[0] * height), : int(cut[1] * width)] = True
    inside = np.where(np.isin(truth, np.unique(truth[~finished])), 0, truth)
    _, inside = np.unique(np.append(inside, 0), return_inverse=True)
    inside = inside[:-1].reshape(truth.shape).astype(np.int32)
    image = annotated(inside, finished=finished)
    noise = np.random.default_rng(seed).integers(0, 3, truth.shape)
    predicted = np.where(finished, inside, np.where(noise > 0, noise + truth.max(), 0))

    found = score_image(image, predicted.astype(np.int32), "cafe")

    assert found.ap90 == 1.0
    assert found.found == found.objects == inside.max(initial=0)


def test_regions_accepted_from_a_network_are_recognised_by_their_pixels() -> None:
    labels = squares((5, 5), (40, 40))

    assert score_image(annotated(labels, untouched=True), labels, "cafe").accepted
    assert not score_image(annotated(labels, untouched=False), labels, "cafe").accepted
    other = squares((7, 7), (43, 43))
    assert not score_image(annotated(labels, untouched=True), other, "cafe").accepted


def test_regions_accepted_from_a_network_are_recognised_by_who_predicted_them() -> None:
    image = annotated(squares((5, 5)), untouched=True, accepted_from=frozenset({"cafe"}))

    assert score_image(image, squares((8, 8)), "cafe").accepted
    assert not score_image(image, squares((8, 8)), "beef").accepted


def test_a_false_alarm_that_a_person_removed_leaves_the_rest_accepted() -> None:
    image = annotated(squares((5, 5), (40, 40)), untouched=True)

    assert score_image(image, squares((5, 5), (40, 40), (70, 70)), "cafe").accepted
