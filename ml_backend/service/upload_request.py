"""What a person says of a checkpoint that they upload: checked, and written for the engine."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final
from unicodedata import category
from urllib.parse import parse_qsl, urlencode

from ml_backend.errors import BadRequest
from ml_backend.model_files.version_folders import slug

LONGEST_NAME: Final = 80  # characters
LONGEST_LICENCE: Final = 200
LONGEST_DESCRIPTION: Final = 2000
UPLOAD_HEADER: Final = "X-Upload"  # carries it from a web process to an engine
LARGEST_DIAMETER: Final = 10_000.0  # pixels

_SESSION: Final = re.compile(r"[0-9a-f]{8,32}")  # what the ids of sessions look like


@dataclass(frozen=True, kw_only=True)
class UploadRequest:
    """What is said of a checkpoint; `checked_upload` makes it."""

    name: str
    licence: str | None  # of the weights; None: nobody said
    description: str  # for people; may be empty
    diameter: float | None  # of the objects that it was trained on, pixels, image frame
    file_name: str  # as it came, for the record
    by: str  # who uploads it, for the record

    def to_query(self) -> str:
        """Return it as a text in ASCII, which `read_upload_query` makes the same of."""
        said = {
            "name": self.name,
            "file_name": self.file_name,
            "licence": self.licence,
            "description": self.description,
            "diameter": self.diameter,
            "by": self.by,
        }
        return urlencode({field: value for field, value in said.items() if value is not None})


def checked_upload(
    *,
    name: str | None,
    file_name: str | None,
    licence: str | None = None,
    description: str | None = None,
    diameter: str | float | None = None,
    by: str,
) -> UploadRequest:
    """Return what is said of a checkpoint, if all of it will do.

    Args:
        name: That the model shall have; None = made of the file's.
        file_name: Of the checkpoint, as its owner calls it.
        licence: Of the weights: an SPDX identifier or a short text.
        description: A sentence or some.
        diameter: Of the objects that it was trained on, in pixels.
        by: Who uploads it.

    Raises:
        BadRequest: something cannot be taken; the sentence says what would do.
    """
    # both kinds of slashes: a browser on another system may send a whole path
    file_name = PurePath((file_name or "").replace("\\", "/")).name[:LONGEST_LICENCE]
    stem = PurePath(file_name).stem
    chosen = slug(stem, longest=LONGEST_NAME) if not name and stem else name or ""
    return UploadRequest(
        name=_checked_name(chosen),
        licence=_text(licence, "licence", LONGEST_LICENCE) or None,
        description=_text(description, "description", LONGEST_DESCRIPTION),
        diameter=_checked_diameter(diameter),
        file_name="".join(letter for letter in file_name if letter.isprintable()),
        by=by,
    )


def read_upload_query(query: str) -> UploadRequest:
    """Return what `UploadRequest.to_query` wrote.

    Raises:
        BadRequest: it did not write that.
    """
    said = dict(parse_qsl(query, keep_blank_values=True))
    return checked_upload(
        name=said.get("name"),
        file_name=said.get("file_name"),
        licence=said.get("licence"),
        description=said.get("description"),
        diameter=said.get("diameter"),
        by=said.get("by", ""),
    )


def _checked_name(name: str) -> str:
    fitting = slug(name, longest=LONGEST_NAME)
    if not name or name != fitting:
        raise BadRequest(
            f"A model cannot be called {name[:LONGEST_NAME]!r}: use small letters, digits and "
            f"dashes, such as {fitting!r} (name)."
        )
    if _SESSION.fullmatch(name):
        raise BadRequest(
            f"A model cannot be called {name!r}, which looks like the id of a session; choose "
            "another name."
        )
    return name


def _text(text: str | None, what: str, longest: int) -> str:
    tidy = (text or "").strip()
    # no control characters, but no-break spaces and the like, which come with what is pasted
    is_plain = all(letter in "\r\n\t" or category(letter)[0] != "C" for letter in tidy)
    if len(tidy) > longest or not is_plain:
        raise BadRequest(f"The {what} must be a text of at most {longest} characters.")
    return tidy


def _checked_diameter(diameter: str | float | None) -> float | None:
    if diameter is None or diameter == "":
        return None
    try:
        number = float(diameter)
    except ValueError:
        number = math.nan
    if not 0 < number <= LARGEST_DIAMETER:
        raise BadRequest(
            f"The diameter must be a number of pixels up to {LARGEST_DIAMETER:g}, not "
            f"{str(diameter)[:40]!r}."
        )
    return number
