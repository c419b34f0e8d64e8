"""Reads what a program asks for: which images, and how."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from ml_backend.errors import BadRequest
from ml_backend.service.inference_parameters import (
    InferenceParameters,
    read_form_fields,
    read_parameters,
)

MOST_IMAGES: Final = 100
UPLOADS: Final = "images"
"""The field of a form whose values are files."""

_PLACES: Final = "image_paths"
_ARRAYS: Final = "input_arrays"
_LONGEST_PLACE: Final = 100_000_000  # a data: address holds an image
_SHOWN_CHARS: Final = 100

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file that came with the request."""

    name: str  # as the caller calls it
    path: Path  # where it lies now
    sha256: str
    size: int  # bytes


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an image lies, as the caller writes it."""

    text: str  # an address, or a path


@dataclass(frozen=True, kw_only=True)
class SentArray:
    """An image as an array, not read yet."""

    json: msgspec.Raw  # a text in base64, or nested lists


Source = Upload | Place | SentArray


@dataclass(frozen=True, kw_only=True)
class InferenceRequest:
    """Images and what is to be done with them."""

    sources: Sequence[Source]  # at least one, at most MOST_IMAGES
    parameters: InferenceParameters

    def told(self, index: int) -> str:
        """Return what a message calls a source."""
        source = self.sources[index]
        if isinstance(source, Upload):
            return f"{UPLOADS} {source.name[:_SHOWN_CHARS]!r}"
        return f"{_PLACES if isinstance(source, Place) else _ARRAYS}[{index}]"


def read_json_request(body: bytes | memoryview) -> InferenceRequest:
    """Return what a JSON body asks for; arrays are left as they are until they are needed.

    Raises:
        BadRequest: it is no such body, or a value is not allowed.
    """
    given = _decoded(body, dict[str, msgspec.Raw], "The body must be a JSON object")
    places = _sources(given.pop(_PLACES, None), _PLACES)
    arrays = _sources(given.pop(_ARRAYS, None), _ARRAYS)
    parameters = read_parameters(
        {name: _decoded(value, object, f"{name[:_SHOWN_CHARS]} cannot be read")
         for name, value in given.items()}
    )  # fmt: skip
    if bool(places) == bool(arrays):
        raise BadRequest(
            f"Give either {_PLACES}, addresses or paths of images, or {_ARRAYS}, images as "
            "arrays; at least one."
        )
    return InferenceRequest(
        sources=[Place(text=_place(raw, index)) for index, raw in enumerate(places)]
        or [SentArray(json=raw) for raw in arrays],
        parameters=parameters,
    )


def read_form_request(
    fields: Iterable[tuple[str, str]], uploads: Sequence[Upload]
) -> InferenceRequest:
    """Return what a form asks for.

    Raises:
        BadRequest: it has no files, or a value is not allowed.
    """
    parameters = read_form_fields(fields)
    if not uploads:
        raise BadRequest(f"The form has no files; give one or more as {UPLOADS}.")
    check_count(len(uploads), UPLOADS)
    return InferenceRequest(sources=list(uploads), parameters=parameters)


def check_count(count: int, field: str) -> None:
    """Check that a request has not too many images.

    Raises:
        BadRequest: it has.
    """
    if count > MOST_IMAGES:
        raise BadRequest(
            f"{field} has {count} images, more than the {MOST_IMAGES} of one request; send them "
            "in several."
        )


def _sources(raw: msgspec.Raw | None, field: str) -> list[msgspec.Raw]:
    if raw is None or bytes(memoryview(raw)[:5]) == b"null":
        return []
    found = _decoded(raw, list[msgspec.Raw], f"{field} must be a list")
    check_count(len(found), field)
    return found


def _place(raw: msgspec.Raw, index: int) -> str:
    text = _decoded(raw, str, f"{_PLACES}[{index}] must be a text")
    if not text.strip() or len(text) > _LONGEST_PLACE:
        raise BadRequest(f"{_PLACES}[{index}] must be the address or path of an image.")
    return text


def _decoded(content: Any, kind: type[T], sentence: str) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except RecursionError:
        raise BadRequest("The request's body is nested too deeply.") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest(f"{sentence} ({error}).") from None
