"""What people say of a model is read from JSON, checked, and written as it was."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_backend.errors import BadRequest
from ml_backend.service.export_request import (
    Author,
    Citation,
    ExportFormat,
    ExportRequest,
    Uploader,
    read_export_request,
    title_of,
    write_export_request,
)

AUTHORS = [{"name": "A. Author", "affiliation": "An Institute"}]


def read(**body: Any) -> ExportRequest:
    return read_export_request("nuclei-1", json.dumps({"authors": AUTHORS, **body}).encode())


def test_everything_that_is_said_arrives() -> None:
    request = read(
        format="bioimageio",
        model_name=" Nuclei  of livers ",
        description="Outlines nuclei.\nIn livers.",
        uploader={"name": "A. Author", "email": "author@example.org"},
        citation=[
            {"text": "A paper", "doi": "https://doi.org/10.1234/abc.d"},
            {"text": "A page", "url": "https://example.org/page"},
        ],
        licence="CC-BY-4.0",
        collection="livers",
        sample=base64.b64encode(b"an array").decode(),
    )

    assert request == ExportRequest(
        model="nuclei-1",
        format=ExportFormat.BIOIMAGEIO,
        title="Nuclei of livers",
        description="Outlines nuclei.\nIn livers.",
        authors=(Author(name="A. Author", affiliation="An Institute"),),
        uploader=Uploader(email="author@example.org", name="A. Author"),
        citations=(
            Citation(text="A paper", doi="10.1234/abc.d"),
            Citation(text="A page", url="https://example.org/page"),
        ),
        licence="CC-BY-4.0",
        collection="livers",
        sample=b"an array",
    )
    assert read_export_request("nuclei-1", write_export_request(request)) == request


def test_little_needs_to_be_said() -> None:
    request = read_export_request("nuclei-1", b'{"authors": [{"name": "A. Author"}]}')
    assert request.title is None
    assert request.authors == (Author(name="A. Author"),)


def test_a_cellpose_checkpoint_needs_no_authors() -> None:
    assert read_export_request("mine", b'{"format": "cellpose"}').format is ExportFormat.CELLPOSE


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"authors": []}, "at least one"),
        ({"authors": None}, "at least one"),
        ({"authors": [{"affiliation": "An Institute"}]}, "needs a name"),
        ({"authors": [{"name": "  "}]}, "needs a name"),
        ({"authors": [{"name": "a/b"}]}, "slashes"),
        ({"authors": [{"name": "A. Author"}] * 101}, "too many"),
        ({"uploader": {"name": "A. Author"}}, "no e-mail address"),
        ({"uploader": {"email": "author"}}, "no e-mail address"),
        ({"uploader": {"email": "author@example"}}, "no e-mail address"),
        ({"uploader": {"email": "author@example.org, bob@example.org"}}, "no e-mail address"),
        ({"citation": [{"text": "A paper"}]}, "doi or url"),
        ({"citation": [{"text": "", "doi": "10.1234/a"}]}, "needs a text"),
        ({"citation": [{"text": "A paper", "doi": "12.1/a"}]}, "no DOI"),
        ({"citation": [{"text": "A page", "url": "file:///etc/passwd"}]}, "no address"),
        ({"model_name": "abc"}, "5 to 128"),
        ({"model_name": "Kerne: Leber"}, "5 to 128"),
        ({"description": "x" * 1025}, "at most 1024"),
        ({"description": "a\0b"}, "at most 1024"),
        ({"format": "onnx"}, "bioimageio or cellpose"),
        ({"sample": "not base64!"}, "base64"),
        ({"licens": "MIT"}, "licens"),
        ({"authors": "A. Author"}, "not as it must be"),
    ],
)
def test_what_is_wrong_is_refused_with_a_sentence(body: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence) as refused:
        read(**body)
    assert refused.value.message.endswith(".")


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        read_export_request("nuclei-1", body)


@given(st.text(max_size=300))
def test_any_name_becomes_one_that_bioimage_io_takes(name: str) -> None:
    title = title_of(name)
    assert read(model_name=title).title == " ".join(title.split())
