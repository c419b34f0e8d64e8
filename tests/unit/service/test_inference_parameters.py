"""What programs may say of a segmentation, as JSON and as texts of a form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_backend.domain import SegmentationOptions
from ml_backend.errors import BadRequest
from ml_backend.formats.mask_files import MaskFormat
from ml_backend.service.inference_parameters import (
    PARAMETERS,
    InferenceParameters,
    read_form_fields,
    read_parameters,
)

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def test_the_defaults_are_those_of_the_reference() -> None:
    assert read_parameters({}) == InferenceParameters()
    assert read_form_fields([]) == InferenceParameters()
    assert {one.name: one.default for one in PARAMETERS} == {
        "artifact": None,
        "model": "auto",
        "diameter": None,
        "flow_threshold": 0.4,
        "cellprob_threshold": 0.0,
        "niter": None,
        "min_size": 15,
        "score_threshold": 0.0,
        "return_flows": False,
        "json_safe": False,
        "enable_clahe": False,
        "plane": None,
        "channels": None,
        "format": "json",
    }


def test_every_value_arrives_from_json_and_from_a_form() -> None:
    expected = InferenceParameters(
        artifact="/data/nuclei",
        model="nuclei-1",
        options=SegmentationOptions(
            diameter=25.5,
            flow_threshold=0,
            cellprob_threshold=-1.5,
            iterations=300,
            min_size=0,
            clahe=True,
            plane=2,
            channels=(2, 0),
        ),
        score_threshold=1,
        with_flows=True,
        nested_lists=True,
        answer=MaskFormat.GEOJSON,
    )
    given_json = {
        "artifact": "/data/nuclei",
        "model": "nuclei-1",
        "diameter": 25.5,
        "flow_threshold": 0,
        "cellprob_threshold": -1.5,
        "niter": 300,
        "min_size": 0,
        "score_threshold": 1,
        "return_flows": True,
        "json_safe": True,
        "enable_clahe": True,
        "plane": 2,
        "channels": [2, 0],
        "format": "geojson",
    }
    texts = {**{name: str(value) for name, value in given_json.items()}, "channels": " 2, 0"}

    assert read_parameters(given_json) == expected
    assert read_form_fields(texts.items()) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("diameter", 0),
        ("diameter", -3),
        ("diameter", math.nan),
        ("diameter", math.inf),
        ("diameter", "30"),
        ("diameter", True),
        ("diameter", 10**400),
        ("flow_threshold", -0.1),
        ("flow_threshold", None),
        ("cellprob_threshold", math.inf),
        ("niter", 0),
        ("niter", 1.5),
        ("niter", 100_001),
        ("min_size", -1),
        ("score_threshold", 1.1),
        ("return_flows", 1),
        ("json_safe", "true"),
        ("enable_clahe", None),
        ("plane", -1),
        ("channels", []),
        ("channels", [0, 1, 2, 3]),
        ("channels", [-1]),
        ("channels", 0),
        ("format", "tif"),
        ("format", None),
        ("model", ""),
        ("model", None),
        ("model", "a\x00b"),
        ("model", "m" * 2001),
        ("artifact", 3),
    ],
)
def test_a_bad_value_is_one_sentence_that_names_it(name: str, value: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        read_parameters({name: value})

    assert caught.value.message.startswith(f"{name} is ")
    assert "; it must be " in caught.value.message
    assert caught.value.message.endswith(".")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("diameter", "wide"),
        ("diameter", "nan"),
        ("diameter", "-1"),
        ("flow_threshold", ""),
        ("niter", "1.5"),
        ("return_flows", "maybe"),
        ("channels", "0;2"),
        ("channels", "[]"),
        ("format", ""),
        ("model", " "),
    ],
)
def test_a_bad_text_is_one_sentence_that_names_its_field(name: str, text: str) -> None:
    with pytest.raises(BadRequest, match=f"^{name} is "):
        read_form_fields([(name, text)])


@pytest.mark.parametrize("text", ["", "null", "None", " "])
@pytest.mark.parametrize("name", ["diameter", "niter", "plane", "channels", "artifact"])
def test_nothing_in_a_form_is_null(name: str, text: str) -> None:
    assert read_form_fields([(name, text)]) == InferenceParameters()


@pytest.mark.parametrize("text", ["true", "1", "Yes", "on"])
def test_truth_in_a_form_has_several_words(text: str) -> None:
    assert read_form_fields([("json_safe", text)]).nested_lists
    assert not read_form_fields([("json_safe", "off")]).nested_lists


def test_an_unknown_parameter_is_told_which_there_are() -> None:
    for read in (read_parameters, lambda given: read_form_fields(given.items())):
        with pytest.raises(BadRequest, match=r"no parameter 'diametre'; there are .*diameter"):
            read({"diametre": "30"})


def test_a_field_that_is_given_twice_is_refused() -> None:
    with pytest.raises(BadRequest, match="diameter is given twice"):
        read_form_fields([("diameter", "3"), ("diameter", "4")])


def refusal(read: Callable[[], object]) -> str:
    """Return the sentence that a value is refused with, nothing where it is taken."""
    try:
        read()
    except BadRequest as error:
        return error.message
    return ""


@given(name=st.sampled_from([one.name for one in PARAMETERS]), value=ANYTHING)
def test_any_json_is_taken_or_refused_in_words(name: str, value: Any) -> None:
    assert len(refusal(lambda: read_parameters({name: value}))) < 500


@given(name=st.sampled_from([one.name for one in PARAMETERS]), text=st.text(max_size=30))
def test_any_text_is_taken_or_refused_in_words(name: str, text: str) -> None:
    assert len(refusal(lambda: read_form_fields([(name, text)]))) < 500
