"""Choices for single objects: the labels of their regions, and `perRegion` tags."""

from __future__ import annotations

import numpy as np
import pytest
from label_studio_sdk.label_interface import LabelInterface

from ml_backend.domain import Classification, LabelConfig, Segmentation
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.labelstudio.results import build_result
from ml_backend.labelstudio.targets import ChoicesTarget, Target, targets_of


def xml_of(tag: str = "PolygonLabels", attributes: str = "", more: str = "") -> str:
    return (
        f'<View><Image name="image" value="$image"/><{tag} name="cells" toName="image" '
        f'{attributes}><Label value="Round"/><Label value="Long"/><Label value="Done"/></{tag}>'
        f"{more}</View>"
    )


PER_REGION = (
    '<Choices name="health" toName="image" perRegion="true"><Choice value="alive"/>'
    '<Choice value="dead"/></Choices>'
)


def three_cells() -> Segmentation:
    labels = np.zeros((60, 60), np.int32)
    for number, left in enumerate((5, 25, 45), start=1):
        labels[10:20, left : left + 10] = number
    return Segmentation(labels=labels, scores=np.array([0.9, 0.1, 0.5], np.float32), diameter=10.0)


def answers(*choices: str) -> list[Classification]:
    return [Classification(choices=(choice,) if choice else (), score=0.5) for choice in choices]


def labels_in(config: LabelConfig, **of_objects: list[Classification]) -> list[str]:
    built = build_result(
        {"cells": three_cells()},
        config,
        of_objects={name.replace("_", "/"): found for name, found in of_objects.items()},
    )
    kind = config.controls[0].tag.value.lower()
    return [region["value"][kind][0] for region in built.regions if region["type"] == kind]


def test_the_labels_of_a_control_are_told_apart_but_for_what_says_what_is_finished() -> None:
    config = parse_label_config(xml_of(attributes='model_roi="Done"'))

    assert config.controls[0].classes == ("Round", "Long")
    assert config.image_choices == ()
    (choices,) = config.object_choices(config.controls[0])
    assert (choices.name, choices.choices, choices.is_label) == (
        "cells/labels",
        ("Round", "Long"),
        True,
    )


@pytest.mark.parametrize("attributes", ['model_label="Long"', 'model_classes="false"'])
def test_one_label_for_all_is_a_matter_of_an_option(attributes: str) -> None:
    config = parse_label_config(xml_of(attributes=attributes))

    assert config.choices == ()
    assert config.controls[0].classes == ()


def test_points_have_no_objects_to_tell_apart() -> None:
    assert parse_label_config(xml_of("KeyPointLabels")).choices == ()


def test_each_object_gets_the_label_of_its_answer_and_the_first_where_there_is_none() -> None:
    config = parse_label_config(xml_of())

    assert labels_in(config, cells_labels=answers("Long", "", "Done")) == ["Long", "Round", "Done"]
    assert labels_in(config) == ["Round"] * 3


def test_objects_that_score_too_low_take_their_answers_along() -> None:
    config = parse_label_config(xml_of(attributes='model_score_threshold="0.3"'))

    assert labels_in(config, cells_labels=answers("Long", "Round", "Done")) == ["Long", "Done"]


def test_merged_masks_are_one_region_for_each_label() -> None:
    config = parse_label_config(xml_of("BrushLabels", 'model_max_regions="1"'))

    assert labels_in(config, cells_labels=answers("Long", "Round", "Long")) == ["Long", "Round"]


def test_choices_for_regions_come_with_their_region() -> None:
    xml = xml_of(more=PER_REGION, attributes='model_label="Long"')
    config = parse_label_config(xml)

    built = build_result(
        {"cells": three_cells()},
        config,
        of_objects={"health": answers("alive", "", "dead")},
    )

    entry = {"result": built.regions, "score": built.score, "model_version": "1"}
    assert LabelInterface(xml).validate_prediction(entry, return_errors=True) == []
    shapes = [one for one in built.regions if one["type"] == "polygonlabels"]
    chosen = {one["id"]: one["value"] for one in built.regions if one["type"] == "choices"}
    assert chosen == {
        shapes[0]["id"]: {"choices": ["alive"]},
        shapes[2]["id"]: {"choices": ["dead"]},
    }


def test_choices_for_regions_where_no_shape_is_fed_are_not_fed() -> None:
    config = parse_label_config(
        '<View><Image name="image" value="$image"/><Choices name="kind" toName="image">'
        f'<Choice value="A"/></Choices>{PER_REGION}</View>'
    )

    assert [control.name for control in config.choices] == ["kind"]
    assert "health" in config.warnings[0]


def test_labels_and_regions_choices_of_one_shape_are_learned_together() -> None:
    config = parse_label_config(
        xml_of(
            more=PER_REGION + '<Choices name="field" toName="image"><Choice value="A"/></Choices>'
        )
    )

    masks, *choices = targets_of(config)

    assert isinstance(masks, Target)
    shapes = {target.names: target.shape for target in choices if isinstance(target, ChoicesTarget)}
    assert shapes[("field",)] is None
    assert shapes[("health", "cells/labels")] == config.controls[0]
