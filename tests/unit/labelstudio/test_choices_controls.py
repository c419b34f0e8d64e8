"""`Choices` tags: how they are read from a label config, answered, and read back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface

from ml_backend.domain import ChoicesControl, Classification, ClusterTag
from ml_backend.errors import BadRequest, ConfigError
from ml_backend.labelstudio.choices import read_chosen
from ml_backend.labelstudio.controls import canonical_config, parse_label_config
from ml_backend.labelstudio.results import build_result

PLANKTON = """
<View>
  <Image name="image" value="$image"/>
  <Choices name="organism_type" toName="image" choice="single">
    <Choice value="Not-plankton"/><Choice value="Plankton"/><Choice value="Debris"/>
  </Choices>
  <Choices name="morphology" toName="image" choice="multiple">
    <Choice value="Theca/test/exoskeletal structures"/><Choice value="Eggs, ripe"/>
  </Choices>
  <TextArea name="ta" toName="image"/>
  <Number name="number" toName="image" model_cluster_of="organism_type"/>
</View>
"""


def with_choices(
    attributes: str = "", inside: str = '<Choice value="A"/><Choice value="B"/>'
) -> str:
    return (
        f'<View><Image name="image" value="$image"/>'
        f'<Choices name="kind" toName="image" {attributes}>{inside}</Choices></View>'
    )


def choices_of(xml: str) -> ChoicesControl:
    (control,) = parse_label_config(xml).choices
    return control


def item_of(*choices: Any, name: str = "kind") -> dict[str, Any]:
    return {
        "from_name": name,
        "to_name": "image",
        "type": "choices",
        "value": {"choices": list(choices)},
    }


def test_every_choices_tag_of_an_image_is_read_and_a_text_area_is_not() -> None:
    config = parse_label_config(PLANKTON)

    assert [control.name for control in config.choices] == ["organism_type", "morphology"]
    assert [control.multiple for control in config.choices] == [False, True]
    assert config.choices[0].choices == ("Not-plankton", "Plankton", "Debris")
    assert config.choices[0].cluster_tag == ClusterTag(tag="number", name="number", to_name="image")
    assert config.controls == ()
    assert config.warnings == ()


def test_the_alias_is_what_results_name() -> None:
    assert choices_of(with_choices(inside='<Choice value="Long name" alias="short"/>')).choices == (
        "short",
    )


def test_options_of_the_root_the_image_and_the_tag_hold_the_nearest_first() -> None:
    xml = (
        '<View model_clusters="7" model_unsure_below="0.2"><Image name="image" value="$image" '
        'model_unsure_below="0.3" model_plane="2"/><Choices name="kind" toName="image" '
        'model_embedder="resnet50"><Choice value="A"/></Choices></View>'
    )

    options = choices_of(xml).options

    assert (options.clusters, options.unsure_below, options.plane) == (7, 0.3, 2)
    assert options.embedder == "resnet50"


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        (with_choices('perRegion="true"'), "perRegion"),
        (with_choices(inside=""), "no Choice tags"),
        (with_choices('value="$options"', ""), "no Choice tags"),
        (with_choices('model_skip="true"'), "model_skip"),
    ],
)
def test_what_is_not_fed_is_said(xml: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_label_config(xml)


def test_choices_of_a_text_are_left_alone() -> None:
    xml = (
        '<View><Image name="image" value="$image"/><Text name="text" value="$text"/>'
        '<PolygonLabels name="cells" toName="image"><Label value="Cell"/></PolygonLabels>'
        '<Choices name="mood" toName="text"><Choice value="good"/></Choices></View>'
    )

    config = parse_label_config(xml)

    assert config.choices == ()
    assert "mood" in config.warnings[0]


def test_an_option_for_masks_on_a_choices_tag_is_told_of() -> None:
    config = parse_label_config(with_choices('model_diameter="12"'))

    assert "model_diameter" in config.warnings[0]
    assert "put it on a control" in config.warnings[0]


def test_a_cluster_tag_of_an_unknown_control_is_refused() -> None:
    with pytest.raises(ConfigError, match="Choices tags that are fed: kind"):
        parse_label_config(
            with_choices().replace(
                "</View>", '<Number name="n" toName="image" model_cluster_of="other"/></View>'
            )
        )


def test_a_config_without_choices_has_the_canonical_form_that_it_always_had() -> None:
    xml = (
        '<View><Image name="image" value="$image"/>'
        '<PolygonLabels name="cells" toName="image"><Label value="Cell"/></PolygonLabels></View>'
    )

    assert set(canonical_config(parse_label_config(xml))) == {"controls"}


def test_the_number_of_clusters_changes_no_version_and_what_is_unsure_does() -> None:
    plain, clusters, unsure = (
        canonical_config(parse_label_config(with_choices(attributes)))
        for attributes in ("", 'model_clusters="9"', 'model_unsure_below="0.5"')
    )

    assert plain == clusters
    assert plain != unsure


def test_answers_are_what_label_studio_takes() -> None:
    config = parse_label_config(PLANKTON)
    answers = {
        "organism_type": Classification(choices=("Plankton",), score=0.75, cluster=4),
        "morphology": Classification(
            choices=("Theca/test/exoskeletal structures", "Eggs, ripe"), score=0.25
        ),
    }

    built = build_result({}, config, classifications=answers)

    entry = {"result": built.regions, "score": built.score, "model_version": "1"}
    assert LabelInterface(PLANKTON).validate_prediction(entry, return_errors=True) == []
    assert [(item["from_name"], item["value"]) for item in built.regions] == [
        ("organism_type", {"choices": ["Plankton"]}),
        ("number", {"number": 4}),
        ("morphology", {"choices": ["Theca/test/exoskeletal structures", "Eggs, ripe"]}),
    ]
    assert built.score == 0.5


def test_an_answer_that_abstains_leaves_its_control_alone() -> None:
    config = parse_label_config(with_choices())

    built = build_result(
        {}, config, classifications={"kind": Classification(choices=(), score=None, cluster=3)}
    )

    assert built.regions == []
    assert built.score is None


@given(st.sets(st.sampled_from(["A, b", "C/d", "é", " "]), min_size=1))
def test_what_was_answered_is_read_back(chosen: set[str]) -> None:
    inside = "".join(f'<Choice value="{choice}"/>' for choice in ("A, b", "C/d", "é", " "))
    config = parse_label_config(with_choices('choice="multiple"', inside))
    answer = Classification(choices=tuple(sorted(chosen)), score=1.0)

    built = build_result({}, config, classifications={"kind": answer})

    assert read_chosen(built.regions, config.choices[0]) == chosen


def test_other_controls_are_passed_over_when_choices_are_read() -> None:
    control = choices_of(with_choices())

    assert read_chosen([item_of("A", name="other"), item_of("B"), "x"], control) == {"B"}
    assert read_chosen([], control) == frozenset()


def test_a_choice_within_a_choice_is_named_by_its_end() -> None:
    assert read_chosen([item_of(["A", "B"])], choices_of(with_choices())) == {"B"}


@pytest.mark.parametrize(
    "regions",
    [
        [item_of(3)],
        [{"from_name": "kind", "value": None}],
        [{"from_name": "kind", "value": {"choices": "A"}}],
        [item_of([])],
        [item_of("A", "B")],
    ],
)
def test_what_cannot_be_read_as_one_choice_is_refused(regions: list[Any]) -> None:
    with pytest.raises(BadRequest, match="kind"):
        read_chosen(regions, choices_of(with_choices()))
