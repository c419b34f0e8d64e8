from __future__ import annotations

import json
from pathlib import Path

import pytest
from label_studio_sdk.label_interface import LabelInterface

from ml_backend.domain import Control, ControlTag, SegmentationOptions
from ml_backend.errors import ConfigError
from ml_backend.labelstudio.controls import canonical_config, parse_label_config

CONFIGS = sorted((Path(__file__).parents[3] / "label_configs").glob("*.xml"))

LABELS = '<Label value="Cell"/><Label value="Other"/>'


def one(attributes: str = "", *, tag: str = "PolygonLabels", labels: str = LABELS) -> str:
    return (
        '<View><Image name="img" value="$image"/>'
        f'<{tag} name="ctl" toName="img" {attributes}>{labels}</{tag}></View>'
    )


def read_one(attributes: str = "", **more: str) -> Control:
    (control,) = parse_label_config(one(attributes, **more)).controls
    return control


def refusal(xml: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_label_config(xml)
    return caught.value.message


def test_a_plain_control_gets_every_default() -> None:
    control = read_one()

    assert control == Control(
        tag=ControlTag.POLYGON_LABELS,
        name="ctl",
        to_name="img",
        value_key="image",
        labels=("Cell", "Other"),
        labels_name=None,
        label="Cell",
        classes=("Cell", "Other"),
        segmentation=SegmentationOptions(),
        score_threshold=0.0,
        max_regions=None,
    )


def test_every_option_is_read() -> None:
    control = read_one(
        'model_name="cpsam_v2" model_diameter="30.5" model_flow_threshold="0.6" '
        'model_cellprob_threshold="-1" model_iterations="200" model_min_size="0" '
        'model_clahe="True" model_plane="2" model_channels="2, 0" model_score_threshold="0.25" '
        'model_label="Other" model_max_regions="7"'
    )

    assert control.segmentation == SegmentationOptions(
        model="cpsam_v2",
        diameter=30.5,
        flow_threshold=0.6,
        cellprob_threshold=-1.0,
        iterations=200,
        min_size=0,
        clahe=True,
        plane=2,
        channels=(2, 0),
    )
    assert (control.score_threshold, control.label, control.max_regions) == (0.25, "Other", 7)


@pytest.mark.parametrize("tag", [tag for tag in ControlTag if tag.value.endswith("Labels")])
def test_each_labelled_tag_is_a_control(tag: ControlTag) -> None:
    control = read_one(tag=tag.value)

    assert (control.tag, control.label, control.labels_name) == (tag, "Cell", None)


@pytest.mark.parametrize("tag", [tag for tag in ControlTag if not tag.value.endswith("Labels")])
def test_a_bare_tag_takes_the_labels_of_the_labels_tag_with_its_image(tag: ControlTag) -> None:
    config = parse_label_config(
        '<View><Image name="img" value="$image"/><Image name="img2" value="$image2"/>'
        '<Labels name="elsewhere" toName="img2"><Label value="No"/></Labels>'
        f'<{tag.value} name="shape" toName="img"/>'
        f'<Labels name="lab" toName="img">{LABELS}</Labels></View>'
    )

    (control,) = config.controls
    assert (control.tag, control.name, control.labels_name) == (tag, "shape", "lab")
    assert (control.labels, control.label) == (("Cell", "Other"), "Cell")


def test_a_bare_tag_without_labels_has_none() -> None:
    control = read_one(tag="Polygon", labels="")

    assert (control.labels, control.label, control.labels_name) == ((), "", None)


def test_the_control_wins_over_its_image_and_that_over_the_root() -> None:
    config = parse_label_config(
        '<View model_diameter="10" model_min_size="1" model_clahe="true">'
        '<Image name="img" value="$image" model_diameter="20" model_min_size="2"/>'
        f'<BrushLabels name="ctl" toName="img" model_diameter="30">{LABELS}</BrushLabels></View>'
    )

    options = config.controls[0].segmentation
    assert (options.diameter, options.min_size, options.clahe) == (30.0, 2, True)
    assert config.warnings == ()


def test_several_controls_and_images_keep_their_own_names_and_keys() -> None:
    config = parse_label_config(
        '<View><Image name="a" value="$first"/><View><Image name="b" value="$second"/></View>'
        f'<PolygonLabels name="one" toName="a">{LABELS}</PolygonLabels>'
        f'<BrushLabels name="two" toName="b">{LABELS}</BrushLabels></View>'
    )

    assert [(c.name, c.to_name, c.value_key) for c in config.controls] == [
        ("one", "a", "first"),
        ("two", "b", "second"),
    ]


def test_a_skipped_control_is_left_out() -> None:
    config = parse_label_config(
        '<View><Image name="img" value="$image"/>'
        f'<PolygonLabels name="one" toName="img" model_skip="true">{LABELS}</PolygonLabels>'
        f'<BrushLabels name="two" toName="img" model_skip="false">{LABELS}</BrushLabels></View>'
    )

    assert [control.name for control in config.controls] == ["two"]


def test_skipping_everything_is_refused_with_the_reason() -> None:
    assert "model_skip" in refusal(one('model_skip="1"'))


def test_an_alias_is_the_name_that_results_use() -> None:
    control = read_one(labels='<View><Label value="Long name" alias="c"/></View>')

    assert (control.labels, control.label) == (("c",), "c")


def test_the_region_of_interest_never_labels_cells() -> None:
    control = read_one('model_roi="Cell"')

    assert control.label == "Other"


def test_the_only_label_cannot_be_the_region_of_interest() -> None:
    message = refusal(one('model_roi="Cell"', labels='<Label value="Cell"/>'))

    assert "no label for the cells" in message


def test_labels_from_the_task_need_model_label() -> None:
    assert "set model_label" in refusal(one('value="$labels"', labels=""))
    assert read_one('value="$labels" model_label="Any"', labels="").label == "Any"


def test_an_unknown_option_warns_with_the_closest_name() -> None:
    config = parse_label_config(one('model_diamter="30"'))

    (warning,) = config.warnings
    assert "did you mean model_diameter" in warning
    assert '<PolygonLabels name="ctl">' in warning


def test_an_option_where_nobody_reads_it_warns() -> None:
    config = parse_label_config(
        '<View><View model_diameter="3"><Image name="img" value="$image"/></View>'
        f'<PolygonLabels name="ctl" toName="img">{LABELS}</PolygonLabels></View>'
    )

    (warning,) = config.warnings
    assert "ignored there" in warning
    assert config.controls[0].segmentation.diameter is None


def test_an_empty_option_is_no_option() -> None:
    assert read_one('model_diameter=" " model_label=""').segmentation.diameter is None


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("model_diameter", "abc"),
        ("model_diameter", "0"),
        ("model_diameter", "-3"),
        ("model_diameter", "nan"),
        ("model_diameter", "inf"),
        ("model_flow_threshold", "-0.1"),
        ("model_cellprob_threshold", "low"),
        ("model_iterations", "0"),
        ("model_iterations", "1.5"),
        ("model_min_size", "-1"),
        ("model_clahe", "maybe"),
        ("model_plane", "-1"),
        ("model_channels", "0,1,2,3"),
        ("model_channels", "1,1"),
        ("model_channels", "red"),
        ("model_score_threshold", "1.1"),
        ("model_label", "Nobody"),
        ("model_roi", "Nobody"),
        ("model_skip", "2"),
        ("model_max_regions", "-1"),
    ],
)
def test_a_value_that_cannot_be_read_names_tag_attribute_value_and_what_is_allowed(
    attribute: str, value: str
) -> None:
    message = refusal(one(f'{attribute}="{value}"'))

    assert '<PolygonLabels name="ctl">' in message
    assert f'{attribute}="{value}"' in message
    assert "allowed is" in message or "labels:" in message


def test_all_problems_are_told_at_once() -> None:
    message = refusal(
        '<View model_min_size="x"><Image name="img" value="$image"/>'
        f'<PolygonLabels name="one" toName="img" model_diameter="y">{LABELS}</PolygonLabels>'
        f'<BrushLabels name="two" toName="img" model_label="z">{LABELS}</BrushLabels></View>'
    )

    assert all(
        text in message
        for text in ('model_min_size="x"', 'model_diameter="y"', 'model_label="z"', "<View>")
    )
    assert message.count("model_min_size") == 1


@pytest.mark.parametrize(
    "xml",
    [
        "<View/>",
        '<View><Image name="img" value="$image"/></View>',
        '<View><Text name="t" value="$t"/><Choices name="c" toName="t">'
        '<Choice value="a"/></Choices></View>',
    ],
)
def test_nothing_to_feed_lists_the_tags_that_work(xml: str) -> None:
    message = refusal(xml)

    assert all(tag.value in message for tag in ControlTag)


def test_a_control_of_something_else_than_an_image_is_not_fed() -> None:
    message = refusal(
        '<View><Video name="v" value="$v"/>'
        f'<RectangleLabels name="r" toName="v">{LABELS}</RectangleLabels></View>'
    )

    assert "no Image tag" in message


def test_a_list_of_images_is_not_supported_and_says_so() -> None:
    message = refusal(
        '<View><Image name="img" valueList="$images"/>'
        f'<PolygonLabels name="p" toName="img">{LABELS}</PolygonLabels></View>'
    )

    assert "valueList" in message


def test_names_must_be_there_and_unique() -> None:
    message = refusal(
        '<View><Image name="img" value="$image"/>'
        f'<PolygonLabels toName="img">{LABELS}</PolygonLabels>'
        f'<BrushLabels name="b" toName="img">{LABELS}</BrushLabels>'
        f'<BitmaskLabels name="b" toName="img">{LABELS}</BitmaskLabels></View>'
    )

    assert "has no name" in message
    assert "another tag has already" in message


@pytest.mark.parametrize("xml", ["", "not xml", "<View>", "<View></Other>", "<a/><b/>", "\x00"])
def test_malformed_xml_is_refused(xml: str) -> None:
    assert "well-formed" in refusal(xml)


def test_entities_are_refused() -> None:
    bomb = '<!DOCTYPE v [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><View>&b;</View>'

    assert "DOCTYPE" in refusal(bomb)


def test_a_huge_config_is_refused() -> None:
    assert "1 MB" in refusal("<View>" + " " * 1_000_000 + "</View>")
    assert "more than 100" in refusal("<View>" + "<Brush/>" * 101 + "</View>")


def test_the_encoding_a_config_declares_does_not_matter() -> None:
    config = parse_label_config(
        '<?xml version="1.0" encoding="utf-8"?>' + one(labels='<Label value="Zelle ü"/>')
    )

    assert config.controls[0].label == "Zelle ü"


def test_the_canonical_form_tells_options_apart_and_is_json() -> None:
    plain = canonical_config(parse_label_config(one()))
    same = canonical_config(parse_label_config(one('model_flow_threshold="0.4"')))
    other = canonical_config(parse_label_config(one('model_max_regions="3"')))

    assert json.loads(json.dumps(plain)) == plain
    assert plain == same
    assert plain != other


@pytest.mark.parametrize(
    "labels",
    [LABELS + '<Label value="Debris"/>', LABELS.replace("<Label ", '<Label background="#00f" ')],
    ids=["another label", "another colour"],
)
def test_labels_that_no_cell_gets_and_colours_change_no_prediction(labels: str) -> None:
    before = canonical_config(parse_label_config(one('model_label="Cell"')))

    assert canonical_config(parse_label_config(one('model_label="Cell"', labels=labels))) == before


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_is_valid_and_read_without_warnings(path: Path) -> None:
    xml = path.read_text(encoding="utf-8")
    interface = LabelInterface(xml)

    config = parse_label_config(xml)

    interface.validate()
    assert config.warnings == ()
    assert xml.startswith("<!--")
    for control in config.controls:
        theirs = interface.get_control(control.name)
        assert theirs.tag == control.tag.value
        assert theirs.to_name == [control.to_name]
        assert interface.get_object(control.to_name).value == f"${control.value_key}"
        source = interface.get_control(control.labels_name or control.name)
        assert tuple(source.labels) == control.labels


def test_every_tag_has_a_shipped_config() -> None:
    tags = {
        control.tag
        for path in CONFIGS
        for control in parse_label_config(path.read_text(encoding="utf-8")).controls
    }

    assert tags >= {tag for tag in ControlTag if tag.value.endswith("Labels")}
    assert ControlTag.POLYGON in tags
