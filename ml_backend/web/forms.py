"""Forms with one large file: read piece by piece, bounded, the file never in memory."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool

from ml_backend.errors import BadRequest, RequestTooLarge

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MOST_FIELDS = 20
LARGEST_FIELD = 20_000  # bytes, of what is no file
LARGEST_HEADER = 4_000  # bytes, of one part's headers
PIECE = 1 << 20  # bytes


@dataclass(kw_only=True)
class Form:
    """The fields of a form and its file; a context manager that closes the file."""

    fields: dict[str, str] = field(default_factory=dict)
    file: IO[bytes] | None = None
    file_name: str | None = None

    def __enter__(self) -> Form:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the file from its beginning."""
        if self.file is None:
            return
        await run_in_threadpool(self.file.seek, 0)
        while piece := await run_in_threadpool(self.file.read, PIECE):
            yield piece


async def read_form(
    request: Request, *, file_field: str, folder: Path, max_bytes: int, limit_name: str
) -> Form:
    """Return the form that a request sends.

    Args:
        request: multipart/form-data.
        file_field: The field that holds the file.
        folder: On whose disk the file is kept meanwhile; it has no name there, so that nothing is
            left of it whatever happens.
        max_bytes: Of the whole request.
        limit_name: The setting that says so, for the message.

    Raises:
        BadRequest: it is no such form, or it broke off.
        RequestTooLarge: it is over `max_bytes`; nothing more of it is read.
        OSError: the disk is full or cannot be written.
    """
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if content_type != b"multipart/form-data" or not boundary:
        raise BadRequest(
            f"The request must be a form (multipart/form-data) with a file {file_field!r}."
        )
    folder.mkdir(parents=True, exist_ok=True)
    reader = _Reader(file_field, folder)
    try:
        parser = MultipartParser(boundary, reader.callbacks())
        await _feed(request, parser, max_bytes, limit_name)
        if not reader.ended:
            raise BadRequest("The form broke off before its end; send it again.")
    except FormParserError as error:
        reader.form.__exit__()
        raise BadRequest(f"The form cannot be read ({error}); send it again.") from None
    except BaseException:
        reader.form.__exit__()
        raise
    return reader.form


async def _feed(request: Request, parser: MultipartParser, max_bytes: int, limit_name: str) -> None:
    too_large = RequestTooLarge(
        f"The file is larger than {limit_name} ({max_bytes / 1e6:g} MB); raise that setting if it "
        "is right."
    )
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > max_bytes:
        raise too_large
    arrived = 0
    async for piece in request.stream():
        arrived += len(piece)
        if arrived > max_bytes:
            raise too_large
        if piece:
            await run_in_threadpool(parser.write, piece)


class _Reader:
    """Takes what the parser finds."""

    def __init__(self, file_field: str, folder: Path) -> None:
        self.form = Form()
        self.ended = False
        self._file_field, self._folder = file_field, folder
        self._header, self._headers = bytearray(), 0
        self._value, self._name = bytearray(), ""
        self._disposition = b""
        self._part = bytearray()
        self._is_file = False
        self._parts = 0

    def callbacks(self) -> MultipartCallbacks:
        """Return what the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers,
            "on_part_data": self._on_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MOST_FIELDS:
            raise BadRequest(f"The form has more than {MOST_FIELDS} fields.")
        self._headers, self._disposition = 0, b""
        self._header, self._value, self._part = bytearray(), bytearray(), bytearray()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._value += data[start:end]

    def _count_header(self, size: int) -> None:
        self._headers += size
        if self._headers > LARGEST_HEADER:
            raise BadRequest("A field of the form has headers that are too long.")

    def _on_header_end(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header, self._value = bytearray(), bytearray()

    def _on_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = self._name == self._file_field
        if not self._is_file:
            return
        if self.form.file is not None:
            raise BadRequest(f"The form has more than one {self._file_field!r}; send one.")
        self.form.file_name = options.get(b"filename", b"").decode("utf-8", "replace") or None
        self.form.file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  # of the form

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file and self.form.file is not None:
            self.form.file.write(data[start:end])
            return
        self._part += data[start:end]
        if len(self._part) > LARGEST_FIELD:
            raise BadRequest(f"The field {self._name[:100]!r} of the form is too long.")

    def _on_part_end(self) -> None:
        if not self._is_file:
            self.form.fields[self._name] = self._part.decode("utf-8", "replace").replace("\0", "")

    def _on_end(self) -> None:
        self.ended = True
