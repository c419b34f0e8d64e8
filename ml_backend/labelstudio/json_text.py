"""Reads JSON as browsers write it: half an emoji must not spoil a whole body."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from ml_backend.errors import BadRequest

_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|u(?P<half>[dD][89a-fA-F]..)|.)", re.DOTALL
)

T = TypeVar("T")


def decode_json(body: bytes, fields: type[T]) -> T:
    """Return the fields of a JSON object that a msgspec structure names.

    Fields that are not named are skipped without being built: the annotations and predictions of
    a batch of tasks are hundreds of megabytes, and ten times that as Python objects.

    Raises:
        BadRequest: it is no JSON, or nested too deeply.
    """
    try:
        try:
            return msgspec.json.decode(body, type=fields)
        except msgspec.DecodeError:
            if _ESCAPE.search(body) is None:
                raise
            return msgspec.json.decode(_ESCAPE.sub(_whole, body), type=fields)
    except RecursionError:
        raise BadRequest("The request's body is nested too deeply.") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest(
            f"The request's body cannot be read ({error}); send JSON as Label Studio does."
        ) from None


def _whole(escape: re.Match[bytes]) -> bytes:
    # browsers let half an emoji pass, msgspec refuses the whole body for it
    return rb"\ufffd" if escape["half"] else escape[0]
