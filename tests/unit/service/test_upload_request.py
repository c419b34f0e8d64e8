"""What may be said of a checkpoint, and that it reaches the engine as it was said."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_backend.errors import BadRequest
from ml_backend.model_files.version_folders import slug
from ml_backend.service.upload_request import checked_upload, read_upload_query


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("My Cells.safetensors", "my-cells"),
        ("cells.v2.pt", "cells-v2"),
        ("C:\\models\\Onion cells.pt", "onion-cells"),
        ("../../etc/passwd", "passwd"),
        (".hidden", "hidden"),
        ("Zwiebelhäutchen.zip", "zwiebelh-utchen"),
    ],
)
def test_a_name_is_made_of_the_file_s(file_name: str, name: str) -> None:
    said = checked_upload(name=None, file_name=file_name, by="Ada")

    assert said.name == name
    assert "/" not in said.file_name
    assert "\\" not in said.file_name


@pytest.mark.parametrize(
    "name",
    ["../up", "a/b", "A", "a b", "a.b", "-a", "a-", "ä", "a" * 81, "a\0", "..", "CON:", "a\n"],
)
def test_a_name_that_no_file_system_should_see_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="small letters, digits and dashes"):
        checked_upload(name=name, file_name="x.pt", by="Ada")


@pytest.mark.parametrize("name", ["deadbeef", "0123456789abcdef0123456789abcdef"])
def test_a_name_like_the_id_of_a_session_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="looks like the id of a session"):
        checked_upload(name=name, file_name="x.pt", by="Ada")


@pytest.mark.parametrize(
    "said",
    [
        {"file_name": ""},
        {"licence": "x" * 201},
        {"licence": "a\x07"},
        {"description": "x" * 2001},
        {"diameter": "wide"},
        {"diameter": "nan"},
        {"diameter": "-1"},
        {"diameter": "0"},
        {"diameter": "1e9"},
    ],
)
def test_what_cannot_be_taken_is_a_sentence(said: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as refused:
        checked_upload(**{"name": None, "file_name": "cells.pt", "by": "Ada", **said})

    assert refused.value.message.endswith(".")
    assert "\n" not in refused.value.message


_TEXTS = st.text(st.characters(exclude_categories=("C",)), max_size=100)


@given(
    name=st.text(min_size=1, max_size=60),
    licence=st.none() | _TEXTS,
    description=_TEXTS,
    diameter=st.none() | st.floats(1, 1000),
    file_name=_TEXTS,
    by=st.text(max_size=30).filter(lambda text: text.isprintable()),
)
def test_what_is_said_reaches_the_engine(
    name: str,
    licence: str | None,
    description: str,
    diameter: float | None,
    file_name: str,
    by: str,
) -> None:
    said = checked_upload(
        name=f"m-{slug(name)}",
        file_name=f"{file_name}x.pt",
        licence=licence,
        description=description,
        diameter=diameter,
        by=by,
    )

    query = said.to_query()

    assert query.isascii()
    assert read_upload_query(query) == said


@given(st.text(max_size=200))
def test_whatever_comes_as_a_query_is_read_or_refused(query: str) -> None:
    with contextlib.suppress(BadRequest):
        assert read_upload_query(query).name
