from __future__ import annotations

import pytest

from ml_backend.errors import BadRequest
from ml_backend.labelstudio.values import parse_value_key, read_value


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("$image", "image"),
        (" $image ", "image"),
        ("$data.image", "data.image"),
        ("$images[0]", "images[0]"),
        ("https://example.org/$file", "https://example.org/$file"),
        ("image", None),
        ("", None),
        ("$", None),
    ],
)
def test_the_key_of_a_value(value: str, key: str | None) -> None:
    assert parse_value_key(value) == key


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"image": "u"}, "image"),
        ({"data": {"image": "u"}}, "data.image"),
        ({"data.image": "u", "data": {"image": "no"}}, "data.image"),
        ({"images": ["no", "u"]}, "images[1]"),
        ({"a": [{"b": {"c": "u"}}]}, "a[0].b.c"),
        ({"image": ["u"]}, "image"),
        ({"$undefined$": "x", "n": "u"}, "n"),
    ],
)
def test_a_task_gives_its_image_address(data: dict[str, object], key: str) -> None:
    assert read_value(data, key) == "u"


def test_a_variable_inside_a_text_is_filled_in() -> None:
    assert read_value({"f": "a.png"}, "https://example.org/$f") == "https://example.org/a.png"


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({}, "image"),
        ({"image": None}, "image"),
        ({"image": ""}, "image"),
        ({"images": []}, "images[0]"),
        ({"images": "text"}, "images[0]"),
        ({"image": 3}, "image"),
        ({"image": ["a", "b"]}, "image"),
        ({"images": ["u"]}, "images[99999999999999999999]"),
    ],
)
def test_a_task_without_one_image_address_is_refused_by_name(
    data: dict[str, object], key: str
) -> None:
    with pytest.raises(BadRequest, match=key.split("[")[0]):
        read_value(data, key)
