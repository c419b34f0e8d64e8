from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface

from ml_backend.domain import ControlTag, LabelConfig, LabelImage, Segmentation
from ml_backend.errors import BadRequest
from ml_backend.labelstudio.annotations import from_regions
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.labelstudio.results import BuiltResult, build_result
from tests.label_images import blobs, discs, ious, noise

LABELS = '<Label value="Cell"/><Label value="Other"/>'
MASKS = [tag for tag in ControlTag if "Brush" in tag.value or "Bitmask" in tag.value]


def config_xml(*tags: ControlTag, attributes: str = "") -> str:
    controls = "".join(
        f'<{tag} name="{tag.lower()}" toName="img" {attributes}>'
        f"{LABELS if tag.endswith('Labels') else ''}</{tag}>"
        for tag in tags
    )
    separate = f'<Labels name="lab" toName="img">{LABELS}</Labels>'
    bare = any(not tag.endswith("Labels") for tag in tags)
    return f'<View><Image name="img" value="$image"/>{controls}{separate if bare else ""}</View>'


def segmentation(labels: LabelImage, scores: list[float] | None = None) -> Segmentation:
    count = int(labels.max(initial=0))
    given_scores = np.linspace(0.2, 0.9, count) if scores is None else np.array(scores)
    return Segmentation(labels=labels, scores=given_scores.astype(np.float32), diameter=12.0)


def built(xml: str, labels: LabelImage, **more: object) -> tuple[BuiltResult, LabelConfig]:
    config = parse_label_config(xml)
    found = {control.name: segmentation(labels) for control in config.controls}
    return build_result(found, config, **more), config  # type: ignore[arg-type] # notes only


def complaints(xml: str, result: BuiltResult) -> list[str]:
    prediction = {"result": result.regions, "score": result.score, "model_version": "v"}
    sent = json.loads(json.dumps(prediction, allow_nan=False))
    return list(LabelInterface(xml).validate_prediction(sent, return_errors=True))


@pytest.mark.parametrize("tag", list(ControlTag))
@given(labels=blobs(max_cells=8), limit=st.sampled_from([0, 1000]))
@settings(max_examples=10, deadline=None)
def test_every_tag_makes_predictions_that_the_sdk_accepts(
    tag: ControlTag, labels: LabelImage, limit: int
) -> None:
    xml = config_xml(tag, attributes=f'model_max_regions="{limit}"')

    result, _ = built(xml, labels, notes=["A note."])

    assert complaints(xml, result) == []


@pytest.mark.parametrize("tag", list(ControlTag))
@given(labels=noise())
@settings(max_examples=10, deadline=None)
def test_noise_on_any_frame_makes_predictions_that_the_sdk_accepts(
    tag: ControlTag, labels: LabelImage
) -> None:
    xml = config_xml(tag)

    result, _ = built(xml, labels)

    assert complaints(xml, result) == []


@pytest.mark.parametrize("tag", MASKS)
@pytest.mark.parametrize("limit", [0, 1000])
@given(labels=blobs(max_cells=12))
@settings(max_examples=10, deadline=None)
def test_masks_come_back_pixel_by_pixel(tag: ControlTag, limit: int, labels: LabelImage) -> None:
    result, config = built(config_xml(tag, attributes=f'model_max_regions="{limit}"'), labels)

    back = from_regions(result.regions, config.controls[0], *labels.shape)

    assert back.labels.max(initial=0) == labels.max(initial=0)
    if limit:
        assert np.array_equal(labels > 0, back.labels > 0)
        assert (ious(labels, back.labels) == 1).all()
    assert set(back.label_names) <= {"Cell"}


@pytest.mark.parametrize(
    ("tag", "least"),
    [
        (ControlTag.POLYGON, 0.95),
        (ControlTag.POLYGON_LABELS, 0.95),
        (ControlTag.ELLIPSE, 0.9),
        (ControlTag.ELLIPSE_LABELS, 0.9),
        (ControlTag.RECTANGLE, 0.6),
        (ControlTag.RECTANGLE_LABELS, 0.6),
    ],
)
def test_shapes_come_back_as_far_as_they_can(tag: ControlTag, least: float) -> None:
    labels = discs(12, diameter=17, height=90, width=130)
    result, config = built(config_xml(tag), labels)

    back = from_regions(json.loads(json.dumps(result.regions)), config.controls[0], 90, 130)

    assert back.labels.max() == 12
    assert ious(labels, back.labels).min() >= least
    assert back.label_names == ("Cell",) * 12


@pytest.mark.parametrize("tag", [ControlTag.KEYPOINT, ControlTag.KEYPOINT_LABELS])
@given(labels=blobs(max_cells=12))
@settings(max_examples=10, deadline=None)
def test_key_points_come_back_as_points_on_their_cells(tag: ControlTag, labels: LabelImage) -> None:
    result, config = built(config_xml(tag), labels)

    back = from_regions(result.regions, config.controls[0], *labels.shape)

    count = int(labels.max(initial=0))
    there = back.labels > 0
    assert there.sum() == count
    assert np.array_equal(np.arange(1, count + 1), np.sort(labels[there]))


def test_a_rectangle_comes_back_exactly() -> None:
    labels = np.zeros((33, 47), dtype=np.int32)
    labels[3:10, 5:40] = 1
    labels[20:33, 0:2] = 2
    result, config = built(config_xml(ControlTag.RECTANGLE_LABELS), labels)

    back = from_regions(result.regions, config.controls[0], 33, 47)

    assert np.array_equal(labels, back.labels)


def test_a_region_carries_all_that_label_studio_wants() -> None:
    labels = discs(2, diameter=9, height=30, width=50)

    result, _ = built(config_xml(ControlTag.POLYGON_LABELS), labels, notes=["Plane 3 of 7."])

    first, second = result.regions
    assert first | {"value": None, "id": None} == {
        "id": None,
        "from_name": "polygonlabels",
        "to_name": "img",
        "type": "polygonlabels",
        "value": None,
        "original_width": 50,
        "original_height": 30,
        "image_rotation": 0,
        "score": 0.2,
        "meta": {"text": ["Plane 3 of 7."]},
    }
    assert first["value"].keys() == {"points", "closed", "polygonlabels"}
    assert first["value"]["polygonlabels"] == ["Cell"]
    assert "meta" not in second
    assert result.score == pytest.approx(0.55)


def test_a_bare_tag_gives_a_shape_and_its_label_with_one_id() -> None:
    labels = discs(1, diameter=9, height=30, width=50)

    result, _ = built(config_xml(ControlTag.POLYGON), labels)

    shape, label = result.regions
    assert shape["id"] == label["id"]
    assert (shape["type"], shape["from_name"]) == ("polygon", "polygon")
    assert (label["type"], label["from_name"]) == ("labels", "lab")
    assert label["value"] == shape["value"] | {"labels": ["Cell"]}
    assert "labels" not in shape["value"]


def test_ids_are_unique_over_all_controls_and_the_same_every_time() -> None:
    labels = discs(20, diameter=5, height=60, width=60)
    xml = config_xml(ControlTag.POLYGON_LABELS, ControlTag.RECTANGLE_LABELS)

    result, _ = built(xml, labels)
    again, _ = built(xml, labels)

    ids = [region["id"] for region in result.regions]
    assert len(set(ids)) == 40
    assert result == again


def test_instances_below_the_score_threshold_are_left_out() -> None:
    labels = discs(4, diameter=5, height=30, width=30)
    config = parse_label_config(
        config_xml(ControlTag.BRUSH_LABELS, attributes='model_score_threshold="0.3"')
    )
    found = segmentation(labels, [0.1, 0.3, np.nan, 0.8])

    result = build_result({"brushlabels": found}, config)

    assert [region["score"] for region in result.regions] == [0.3, 0.8]
    back = from_regions(result.regions, config.controls[0], 30, 30)
    assert np.array_equal(np.isin(labels, [2, 4]), back.labels > 0)


@pytest.mark.parametrize("tag", MASKS)
def test_above_the_limit_masks_are_merged_and_a_note_says_so(tag: ControlTag) -> None:
    labels = discs(101, diameter=5, height=100, width=100)

    result, config = built(config_xml(tag), labels)

    assert len({region["id"] for region in result.regions}) == 1
    assert "101 cells are too many" in result.regions[0]["meta"]["text"][0]
    assert from_regions(result.regions, config.controls[0], 100, 100).labels.max() == 101


def test_at_the_limit_every_cell_has_its_mask() -> None:
    labels = discs(100, diameter=5, height=100, width=100)

    result, _ = built(config_xml(ControlTag.BRUSH_LABELS), labels)

    assert len(result.regions) == 100
    assert result.notes == ()


def test_polygons_carry_the_cells_that_are_too_many_for_masks() -> None:
    labels = discs(101, diameter=5, height=100, width=100)
    xml = config_xml(ControlTag.BRUSH_LABELS, ControlTag.POLYGON_LABELS)

    result, _ = built(xml, labels)

    assert {region["from_name"] for region in result.regions} == {"polygonlabels"}
    assert len(result.regions) == 101
    assert "polygons carry them" in result.regions[0]["meta"]["text"][0]


def test_below_the_limit_both_masks_and_polygons_are_made() -> None:
    labels = discs(3, diameter=5, height=40, width=40)

    result, _ = built(config_xml(ControlTag.BRUSH_LABELS, ControlTag.POLYGON_LABELS), labels)

    assert len(result.regions) == 6


def test_polygons_of_another_image_do_not_replace_masks() -> None:
    labels = discs(101, diameter=5, height=100, width=100)
    xml = (
        '<View><Image name="a" value="$a"/><Image name="b" value="$b"/>'
        f'<BrushLabels name="m" toName="a">{LABELS}</BrushLabels>'
        f'<PolygonLabels name="p" toName="b">{LABELS}</PolygonLabels></View>'
    )

    result, _ = built(xml, labels)

    assert [region["from_name"] for region in result.regions[:2]] == ["m", "p"]


def test_a_control_without_segmentation_gets_nothing() -> None:
    config = parse_label_config(config_xml(ControlTag.BRUSH_LABELS, ControlTag.POLYGON_LABELS))

    result = build_result(
        {"brushlabels": segmentation(discs(2, diameter=5, height=20, width=20))}, config
    )

    assert {region["from_name"] for region in result.regions} == {"brushlabels"}


def test_no_cells_are_a_result_without_score() -> None:
    result, _ = built(
        config_xml(ControlTag.POLYGON_LABELS), np.zeros((9, 9), dtype=np.int32), notes=["Dark."]
    )

    assert result == ([], None, ("Dark.",))


def test_the_smaller_of_two_overlapping_regions_is_on_top() -> None:
    control = parse_label_config(config_xml(ControlTag.RECTANGLE_LABELS)).controls[0]
    small = {"x": 40, "y": 40, "width": 20, "height": 20, "rectanglelabels": ["Other"]}
    large = {"x": 0, "y": 0, "width": 100, "height": 100}
    regions = [
        {"id": "s", "from_name": "rectanglelabels", "value": small},
        {"id": "l", "from_name": "rectanglelabels", "value": large},
        {"id": "r", "from_name": "rectanglelabels", "value": large},
        {"type": "relation", "from_id": "s", "to_id": "l"},
        {"id": "o", "from_name": "other", "value": large},
        "nonsense",
    ]

    back = from_regions(regions, control, 10, 10)

    assert back.region_ids == ("s", "r")
    assert back.label_names == ("Other", "")
    assert back.labels[5, 5] == 1
    assert back.labels[0, 0] == 2
    assert '"l"' in back.notes[0]


def test_antialiased_strokes_are_cut_at_half_opacity() -> None:
    from label_studio_sdk.converter.brush import mask2rle

    control = parse_label_config(config_xml(ControlTag.BRUSH_LABELS)).controls[0]
    alpha = np.zeros((12, 12), dtype=np.uint8)
    alpha[2:8, 2:8] = 100
    alpha[3:7, 3:7] = 128
    region = {"id": "b", "from_name": "brushlabels", "value": {"rle": mask2rle(alpha)}}

    back = from_regions([region], control, 12, 12)

    assert np.array_equal(alpha == 128, back.labels == 1)


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        (ControlTag.POLYGON_LABELS, None),
        (ControlTag.POLYGON_LABELS, {}),
        (ControlTag.POLYGON_LABELS, {"points": [[1, 1], [2, 2]]}),
        (ControlTag.POLYGON_LABELS, {"points": [[1, 1], [2, 2], [3]]}),
        (ControlTag.POLYGON_LABELS, {"points": [[1, 1], [2, 2], ["3", 4]]}),
        (ControlTag.POLYGON_LABELS, {"points": [[1, 1], [2, 2], [float("nan"), 4]]}),
        (ControlTag.POLYGON_LABELS, {"points": [[1, 1], [2, 2], [1e300, 4]]}),
        (ControlTag.POLYGON_LABELS, {"points": [[1, 1]] * 10_001}),
        (ControlTag.RECTANGLE_LABELS, {"x": 1, "y": 1, "width": 3}),
        (ControlTag.RECTANGLE_LABELS, {"x": 1, "y": True, "width": 3, "height": 3}),
        (ControlTag.ELLIPSE_LABELS, {"x": 1, "y": 1, "radiusX": "a", "radiusY": 2}),
        (ControlTag.KEYPOINT_LABELS, {"x": 1}),
        (ControlTag.BRUSH_LABELS, {"rle": "text"}),
        (ControlTag.BRUSH_LABELS, {"rle": [1, 2, 3]}),
        (ControlTag.BRUSH_LABELS, {"touches": []}),
        (ControlTag.BITMASK_LABELS, {"imageDataURL": 5}),
        (ControlTag.BITMASK_LABELS, {"imageDataURL": "data:,"}),
    ],
)
def test_a_region_that_cannot_be_read_is_named(tag: ControlTag, value: object) -> None:
    control = parse_label_config(config_xml(tag)).controls[0]
    region = {"id": "bad-one", "from_name": tag.lower(), "type": tag.lower(), "value": value}

    with pytest.raises(BadRequest, match=r'^Region "bad-one" '):
        from_regions([region], control, 20, 30)


def test_regions_outside_of_the_image_are_noted() -> None:
    control = parse_label_config(config_xml(ControlTag.ELLIPSE_LABELS)).controls[0]
    outside = {"x": 300, "y": 50, "radiusX": 3, "radiusY": 3}
    flat = {"x": 50, "y": 50, "radiusX": 0, "radiusY": 3}
    regions = [
        {"id": name, "from_name": "ellipselabels", "value": value}
        for name, value in (("out", outside), ("flat", flat))
    ]

    back = from_regions(regions, control, 20, 30)

    assert back.labels.max() == 0
    assert len(back.notes) == 2
