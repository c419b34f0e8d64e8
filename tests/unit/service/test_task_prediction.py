"""One task, from its image to regions and choices."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ml_backend.domain import (
    Component,
    LabelStudioAccess,
    Prediction,
    Priority,
    Release,
    Task,
)
from ml_backend.errors import ImageFetchError
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.service.task_prediction import TaskPredictor, input_hash
from tests.unit.service.conftest import (
    COMPONENT,
    FakeClassifier,
    FakeFetcher,
    FakeSegmenter,
    decode_square,
)

CHOICES = '<Choices name="kind" toName="image"><Choice value="A"/><Choice value="B"/></Choices>'
TWO_LABELS = (
    '<PolygonLabels name="cells" toName="image"><Label value="Round"/><Label value="Long"/>'
    "</PolygonLabels>"
)
CLASSIFIER = Component(
    name="shapes-1-logistic-p1-v1", architecture="classifier", sha256="c" * 64, path="", licence=""
)
EMBEDDER = replace(CLASSIFIER, name="shapes-1", architecture="descriptors")


def predict(inside: str, task_data: str = "cell.png", **components: Component) -> Prediction:
    """Return the prediction of a task by a config with these controls."""
    config = parse_label_config(f'<View><Image name="image" value="$image"/>{inside}</View>')
    segmenter = FakeSegmenter()
    segmenter.gate.set()
    predictor = TaskPredictor(
        fetcher=FakeFetcher(),
        decode=decode_square,
        segmenter=segmenter,
        classifier=FakeClassifier(),
    )
    served = {name.replace("_", "/"): component for name, component in components.items()}
    return predictor.predict(
        Task(id=1, data={"image": task_data}),
        release=Release(version="v", components=served, label_config=""),
        config=config,
        access=LabelStudioAccess(origin=None),
        priority=Priority.BATCH,
    )


def test_choices_alone_need_no_masks() -> None:
    prediction = predict(CHOICES, kind=CLASSIFIER)

    (region,) = prediction.result
    assert region["value"] == {"choices": ["A"]}
    assert (prediction.score, prediction.cluster) == (0.25, 7)


def test_masks_and_choices_are_one_prediction() -> None:
    prediction = predict(
        TWO_LABELS + CHOICES, cells=COMPONENT, cells_labels=EMBEDDER, kind=CLASSIFIER
    )

    assert [region["type"] for region in prediction.result] == ["polygonlabels", "choices"]
    assert prediction.score == pytest.approx((0.75 + 0.25) / 2)


def test_objects_get_their_own_label_once_labels_were_learned() -> None:
    before = predict(TWO_LABELS, cells=COMPONENT, cells_labels=EMBEDDER)
    after = predict(TWO_LABELS, cells=COMPONENT, cells_labels=CLASSIFIER)

    assert before.result[0]["value"]["polygonlabels"] == ["Round"]
    assert after.result[0]["value"]["polygonlabels"] == ["Long"]


def test_a_release_from_before_there_were_classes_is_served_as_it_was() -> None:
    prediction = predict(TWO_LABELS + CHOICES, cells=COMPONENT)

    assert [region["type"] for region in prediction.result] == ["polygonlabels"]


def test_an_image_that_cannot_be_fetched_fails_its_task() -> None:
    with pytest.raises(ImageFetchError):
        predict(CHOICES, "missing.png", kind=CLASSIFIER)


def test_another_image_for_choices_is_another_input() -> None:
    config = parse_label_config(f'<View><Image name="image" value="$image"/>{CHOICES}</View>')

    one, other = (
        input_hash(Task(id=1, data={"image": name, "comment": name}), config)
        for name in ("a.png", "b.png")
    )

    assert one != other
    assert one == input_hash(Task(id=1, data={"image": "a.png"}), config)
