"""Answers written to disk: whole or not at all, however large they are."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

import httpx

from ml_backend.client.call import Call
from ml_backend.client.connection import Connection
from ml_backend.errors import BadRequest, ServerError

CHECKSUM = "x-checksum-sha256"
_UNSAFE = re.compile(r"[^\w.() +-]", re.ASCII)


def download(
    connection: Connection,
    call: Call,
    output: Path | str,
    *,
    default_name: str,
    may_replace: bool = True,
) -> Path:
    """Write the answer to a call to a file and return its path.

    Args:
        connection: To the server.
        call: What to ask.
        output: The file, replaced where there is one; or a folder, where it gets the name that the
            server gives it.
        default_name: In a folder, where the server gives it none.
        may_replace: Whether a file that is there already may be replaced.

    Raises:
        BadRequest: it cannot be written there, or is there already.
        ServerError: what arrived is not what the server says it sent.
        BackendError: what the server refuses with.
    """
    target = Path(output).expanduser()

    def write(response: httpx.Response) -> Path:
        path = target / _name_of(response, default_name) if target.is_dir() else target
        if not may_replace and path.exists():
            raise BadRequest(f"{path} is there already; give another name.")
        with _written_aside(path) as file:
            digest = hashlib.sha256()
            for piece in response.iter_bytes():
                digest.update(piece)
                with _disk_problems(path):
                    file.write(piece)
            expected = response.headers.get(CHECKSUM)
            if expected is not None and expected.lower() != digest.hexdigest():
                raise ServerError(
                    f"{path.name} arrived with another checksum than the server has; ask again."
                )
        return path

    return connection.fetch(call, write)


def _name_of(response: httpx.Response, default: str) -> str:
    """Return a name for a file from what the server calls it: never a path, never hidden."""
    header = EmailMessage()
    header["Content-Disposition"] = response.headers.get("content-disposition", "attachment")
    given = header.get_filename() or ""
    name = PureWindowsPath(PurePosixPath(given).name).name  # nobody's separators
    return _UNSAFE.sub("_", name).lstrip(".")[:200] or default


@contextmanager
def _written_aside(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that becomes `path` at the end, unless an exception ends it."""
    aside = path.with_name(f".{uuid.uuid4().hex}.part")
    with _disk_problems(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = aside.open("xb")
    try:
        with file:
            yield file
            with _disk_problems(path):
                file.flush()
                os.fsync(file.fileno())
        with _disk_problems(path):
            aside.replace(path)
    except BaseException:  # also a wish to stop: raised again, no half file is left behind
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


@contextmanager
def _disk_problems(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadRequest(
            f"{path} cannot be written ({error.strerror}); name another place."
        ) from None
