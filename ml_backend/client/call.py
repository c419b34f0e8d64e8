"""Requests, before they are sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from ml_backend.errors import BadRequest

Parameter = str | int | Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file of a form, read piece by piece while it is sent."""

    field: str
    name: str  # of the file, as the server sees it
    path: Path

    def open(self) -> BinaryIO:
        """Return the file, to be read.

        Raises:
            BadRequest: it is not there, or may not be read.
        """
        try:
            return self.path.open("rb")
        except OSError as error:
            raise BadRequest(
                f"{self.path} cannot be read ({error.strerror}); check the path."
            ) from None


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request, such that it can be sent again."""

    method: str
    path: str  # after the server's address
    query: Mapping[str, Parameter | None] = field(default_factory=dict)  # None = left out
    body: Any = None  # what is sent as JSON; None = nothing
    form: Mapping[str, str] = field(default_factory=dict)  # fields beside `uploads`
    uploads: Sequence[Upload] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    is_repeatable: bool = False  # whether sending it twice does no harm
    timeout_s: float | None = None  # of silence; None = the client's own

    def arguments(self, files: ExitStack) -> dict[str, Any]:
        """Return what httpx makes a request of; `files` closes what is opened for it.

        Raises:
            BadRequest: a file cannot be read.
        """
        query = {name: value for name, value in self.query.items() if value is not None}
        made: dict[str, Any] = {"params": query, "headers": dict(self.headers)}
        if self.uploads:
            made["data"] = dict(self.form)
            made["files"] = [
                (upload.field, (upload.name, files.enter_context(upload.open())))
                for upload in self.uploads
            ]
        elif self.body is not None:
            made["content"] = msgspec.json.encode(self.body)
            made["headers"] = {"Content-Type": "application/json", **self.headers}
        return made
