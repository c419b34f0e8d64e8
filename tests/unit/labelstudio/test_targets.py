"""Which controls share a network."""

from __future__ import annotations

from dataclasses import replace

from ml_backend.domain import DefaultModels
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.labelstudio.targets import asked_by, find_target, subject_of, targets_of
from ml_backend.learning import LearningOptions


def config(*controls: str) -> str:
    return (
        '<View><Image name="one" value="$one"/><Image name="two" value="$two"/>'
        + "".join(controls)
        + "</View>"
    )


def control(tag: str, name: str, image: str = "one", more: str = "") -> str:
    return f'<{tag} name="{name}" toName="{image}" {more}><Label value="Cell"/></{tag}>'


def test_controls_of_one_image_and_network_are_trained_together() -> None:
    parsed = parse_label_config(config(control("PolygonLabels", "a"), control("BrushLabels", "b")))

    (target,) = targets_of(parsed)

    assert target.names == ("a", "b")
    assert (target.value_key, target.model) == ("one", None)
    assert find_target(parsed, ["b", "a"]) == target
    assert find_target(parsed, ["a"]) is None


def test_other_images_networks_planes_and_channels_are_trained_apart() -> None:
    parsed = parse_label_config(
        config(
            control("PolygonLabels", "a"),
            control("PolygonLabels", "b", "two"),
            control("PolygonLabels", "c", more='model_name="cpsam"'),
            control("PolygonLabels", "d", more='model_plane="2"'),
            control("PolygonLabels", "e", more='model_channels="1"'),
            control("PolygonLabels", "f", more='model_score_threshold="0.5"'),
        )
    )

    assert [target.names for target in targets_of(parsed)] == [
        ("a", "f"),
        ("b",),
        ("c",),
        ("d",),
        ("e",),
    ]


def test_points_follow_a_network_but_never_teach_one() -> None:
    together = parse_label_config(
        config(control("KeyPointLabels", "points"), control("PolygonLabels", "cells"))
    )
    alone = parse_label_config(config(control("KeyPointLabels", "points")))

    (target,) = targets_of(together)
    assert target.names == ("points", "cells")
    assert [teacher.name for teacher in target.teachers] == ["cells"]
    assert targets_of(alone) == ()


def test_the_subject_changes_with_what_decides_what_is_learned() -> None:
    def subject(more: str = "", **options: str) -> str:
        (target,) = targets_of(parse_label_config(config(control("PolygonLabels", "a", more=more))))
        return subject_of(target, replace(LearningOptions(), **options))

    assert subject() == subject()
    assert len({subject(), subject('model_clahe="true"'), subject(group_field="well")}) == 3


def test_what_a_control_asks_for_is_its_network_and_the_pixels_that_it_sees() -> None:
    parsed = parse_label_config(
        config(
            control("PolygonLabels", "plain"),
            control("PolygonLabels", "named", more='model_name="cpsam"'),
            control("PolygonLabels", "pixels", more='model_channels="1,0" model_plane="2"'),
            control("PolygonLabels", "settings", more='model_diameter="20"'),
        )
    )

    assert [asked_by(one, DefaultModels()) for one in parsed.controls] == [
        "auto",
        "cpsam",
        "auto (channels 1, 0; plane 2)",
        "auto",
    ]
