"""Whatever a class returns, Label Studio gets what it can take."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_backend.domain import Prediction
from ml_backend.errors import ConfigError, ToolkitError
from ml_backend.hosting.answers import complaint, entries_of, read_entry
from ml_backend.hosting.tag_names import known_names
from ml_backend.web.answers import is_valid_entry
from tests.unit.hosting.conftest import CONFIG

KNOWN = known_names(CONFIG)


def region(**more: Any) -> dict[str, Any]:
    """Return a region that is as it must be, but for what is given."""
    return {
        "from_name": "box",
        "to_name": "image",
        "type": "rectanglelabels",
        "value": {"x": 1.0, "rectanglelabels": ["Cell"]},
        **more,
    }


class Dumped:
    """Something with pydantic's `model_dump`."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content

    def model_dump(self) -> dict[str, Any]:
        return self.content


@pytest.mark.parametrize(
    "answer",
    [
        [{"result": []}, {"result": []}],
        ({"result": []}, {"result": []}),
        Dumped({"predictions": [{"result": []}, {"result": []}], "model_version": "x"}),
        {"predictions": [{"result": []}, {"result": []}]},
        {"results": [{"result": []}, {"result": []}]},
    ],
)
def test_every_form_of_answer_is_understood(answer: Any) -> None:
    assert entries_of(answer, 2) == [{"result": []}, {"result": []}]


@pytest.mark.parametrize("answer", [None, [], (), {"predictions": []}, {}])
def test_nothing_is_no_prediction_for_any_task(answer: Any) -> None:
    assert entries_of(answer, 3) == [None, None, None]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [([{}], "1 predictions for 2 tasks"), ("text", "returned str"), (5, "returned int")],
)
def test_another_answer_is_refused(answer: Any, reason: str) -> None:
    with pytest.raises(ToolkitError, match=reason):
        entries_of(answer, 2)


def test_an_entry_is_read_with_numpy_in_it() -> None:
    found = read_entry(
        Dumped(
            {
                "result": [
                    region(value={"x": np.float32(0.5), "rle": np.array([1, 2], np.uint8)}),
                    Dumped(region(score=np.float64(0.25), labels={"b", "a"})),
                ],
                "score": np.float32(0.5),
                "model_version": 3,
            }
        ),
        KNOWN,
    )
    assert found is not None
    assert (found.score, found.notes) == (0.5, ())
    assert found.result[0]["value"] == {"x": 0.5, "rle": [1, 2]}
    assert found.result[1]["labels"] == ["a", "b"]


@pytest.mark.parametrize("entry", [None, {}, [], [None], [{}]])
def test_an_empty_entry_is_no_prediction(entry: Any) -> None:
    assert read_entry(entry, KNOWN) is None


def test_a_prediction_without_regions_is_one() -> None:
    found = read_entry({"result": [], "score": 0}, KNOWN)
    assert found is not None
    assert (found.result, found.score) == ([], 0.0)


def test_of_several_predictions_the_first_counts() -> None:
    found = read_entry([{"result": [], "score": 1}, {"result": [], "score": 2}], KNOWN)
    assert found is not None
    assert found.score == 1
    assert found.notes == ("Of 2 predictions for one task the first is taken.",)


@pytest.mark.parametrize("score", ["x", None, float("nan"), float("inf"), {}, 10**400])
def test_a_score_that_is_none_is_left_out(score: Any) -> None:
    found = read_entry({"result": [], "score": score}, KNOWN)
    assert found is not None
    assert found.score is None


BAD_REGIONS = [
    "x",
    None,
    [1],
    region(type="RectangleLabels"),
    region(type=None),
    region(value=None),
    region(value=[1]),
    region(from_name="other"),
    region(to_name=None),
    region(value={"x": float("nan")}),
    region(value={"x": float("inf")}),
    region(value={"x": object()}),
    region(value={"x": 2**70}),
    region(score=1j),
]


@pytest.mark.parametrize("bad", BAD_REGIONS)
def test_a_bad_region_is_left_out_and_the_others_stay(bad: Any) -> None:
    found = read_entry({"result": [bad, region(id="good")]}, KNOWN)
    assert found is not None
    assert [one["id"] for one in found.result] == ["good"]
    assert len(found.notes) == 1
    assert found.notes[0].startswith("A region")


def test_nothing_but_bad_regions_is_a_failure() -> None:
    with pytest.raises(ToolkitError, match="the label config has no such tag"):
        read_entry({"result": [region(from_name="other")]}, KNOWN)


@pytest.mark.parametrize("entry", ["x", 5, {"result": None}, {"score": 1}, {"result": "x"}])
def test_an_entry_without_a_list_of_regions_is_refused(entry: Any) -> None:
    with pytest.raises(ToolkitError, match="without a list of regions"):
        read_entry(entry, KNOWN)


def test_relations_tie_regions_together() -> None:
    tie = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"}
    found = read_entry({"result": [region(), tie]}, KNOWN)
    assert found is not None
    assert found.result[1] == tie


def test_a_region_that_contains_itself_is_left_out() -> None:
    endless = region()
    endless["value"]["again"] = endless
    found = read_entry({"result": [endless, region()]}, KNOWN)
    assert found is not None
    assert len(found.result) == 1


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["result", "score", "type", "value", "from_name", "to_name", "id"]),
            inner | st.sampled_from(["box", "image", "relation", "rectanglelabels"]),
            max_size=6,
        )
    ),
    max_leaves=20,
)


@given(answer=anything)
def test_whatever_is_returned_becomes_a_valid_entry_or_a_sentence(answer: Any) -> None:
    with contextlib.suppress(ToolkitError):
        [entry] = entries_of(answer, 1)
        found = read_entry(entry, KNOWN)
        if found is None:
            return
        prediction = Prediction(result=found.result, score=found.score, model_version="v")
        assert is_valid_entry(orjson.dumps(prediction.to_json()), "v")


def test_names_in_a_repeater_stand_for_many() -> None:
    known = known_names(
        '<View><Repeater on="$pages" indexFlag="{{idx}}"><Image name="page_{{idx}}" value="$p"/>'
        '<Choices name="kind_{{idx}}" toName="page_{{idx}}"/></Repeater></View>'
    )
    assert known("page_0")
    assert known("kind_12")
    assert not known("page_")
    assert not known("other")


@pytest.mark.parametrize("config", ["", "<View>", "<!DOCTYPE x><View/>", "text"])
def test_a_label_config_that_is_no_xml_is_refused(config: str) -> None:
    with pytest.raises(ConfigError):
        known_names(config)


def test_complaints_are_cut_short() -> None:
    assert complaint([]) is None
    assert complaint(["one"]) == "one"
    assert complaint(["a" * 999, "two", "three"]) == f"{'a' * 300} (and 2 more)"
