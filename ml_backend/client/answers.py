"""Reads answers into nouns, and names for paths."""

from __future__ import annotations

from typing import TypeVar
from urllib.parse import quote

import msgspec

from ml_backend.errors import BadRequest, ServerError

Noun = TypeVar("Noun")


def read_answer(content: bytes, kind: type[Noun]) -> Noun:
    """Return the noun that an answer, JSON, holds; fields that are not ours are passed over.

    Raises:
        ServerError: it is something else.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ServerError(
            f"The server's answer is not as this version of the client knows it ({error}); update "
            "the older of the two."
        ) from None


def path_of(*names: str) -> str:
    """Return a path of /api/v1 from its parts, whatever characters the names have.

    Raises:
        BadRequest: one is empty, or would lead to another path.
    """
    for name in names:
        if not name or set(name) == {"."}:
            raise BadRequest(f"{name!r} is no name; give that of a session, model or project.")
    return "/" + "/".join(quote(name, safe="") for name in names)
