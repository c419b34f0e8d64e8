"""Which images a request names, and how much of it is read before they are needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_backend.errors import BadRequest
from ml_backend.service.inference_request import (
    MOST_IMAGES,
    Place,
    SentArray,
    Upload,
    read_form_request,
    read_json_request,
)


def body(**fields: Any) -> bytes:
    """Return a JSON body."""
    return json.dumps(fields).encode()


def upload(name: str = "a.png") -> Upload:
    """Return an upload that nobody opens."""
    return Upload(name=name, path=Path("/nowhere"), sha256="0" * 64, size=3)


def test_places_and_parameters_are_read() -> None:
    request = read_json_request(body(image_paths=["https://x/a.png", "/b.tif"], diameter=20))

    assert request.sources == [Place(text="https://x/a.png"), Place(text="/b.tif")]
    assert request.parameters.options.diameter == 20
    assert request.told(1) == "image_paths[1]"


def test_arrays_are_left_as_they_are() -> None:
    request = read_json_request(body(input_arrays=["bm8=", [[1, 2], [3, "x"]]], image_paths=[]))

    texts = [bytes(memoryview(source.json)) for source in request.sources
             if isinstance(source, SentArray)]  # fmt: skip
    assert texts == [b'"bm8="', b'[[1, 2], [3, "x"]]']
    assert request.told(0) == "input_arrays[0]"


def test_uploads_are_named_by_their_files() -> None:
    request = read_form_request([("diameter", "20")], [upload("a.png"), upload("b.png")])

    assert [one.name for one in request.sources if isinstance(one, Upload)] == ["a.png", "b.png"]
    assert request.parameters.options.diameter == 20
    assert request.told(1) == "images 'b.png'"


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        (b"", "must be a JSON object"),
        (b"[]", "must be a JSON object"),
        (b"\xff", "must be a JSON object"),
        (b'{"image_paths": ["a"', "must be a JSON object"),
        (b"{}", "either image_paths"),
        (body(image_paths=[]), "either image_paths"),
        (body(image_paths=None, input_arrays=None), "either image_paths"),
        (body(image_paths=["a"], input_arrays=["b"]), "either image_paths"),
        (body(image_paths="a"), "image_paths must be a list"),
        (body(image_paths=[3]), r"image_paths\[0\] must be a text"),
        (body(image_paths=["a", " "]), r"image_paths\[1\] must be the address or path"),
        (body(input_arrays={"a": 1}), "input_arrays must be a list"),
        (body(image_paths=["a"] * (MOST_IMAGES + 1)), "more than the 100 of one request"),
        (body(image_paths=["a"], diameter=-1), "diameter is -1"),
        (body(image_paths=["a"], images=1), "no parameter 'images'"),
        (b'{"image_paths": ["a"], "diameter": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested"),
        (b'{"image_paths": ["a"], "diameter": NaN}', "malformed"),
    ],
)
def test_a_bad_body_is_one_sentence(sent: bytes, sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence) as caught:
        read_json_request(sent)

    assert len(caught.value.message) < 500


def test_a_form_without_files_and_one_with_too_many_are_refused() -> None:
    with pytest.raises(BadRequest, match="no files"):
        read_form_request([], [])
    with pytest.raises(BadRequest, match="more than the 100"):
        read_form_request([], [upload()] * (MOST_IMAGES + 1))


@given(sent=st.binary(max_size=60))
def test_any_bytes_are_taken_or_refused_in_words(sent: bytes) -> None:
    with pytest.raises(BadRequest):
        read_json_request(sent)
