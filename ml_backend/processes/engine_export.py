"""The engine's route for models as files: `POST /export`.

The request is a JSON body; the header says which model. One export at a time: each computes for
minutes and takes gigabytes.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote

import anyio.to_thread
from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse

from ml_backend.errors import Busy, EngineError, RequestTooLarge
from ml_backend.processes.export_child import ExportedFile
from ml_backend.service.export_request import MAX_BODY_BYTES, MODEL_HEADER, NOTES_HEADER

_PIECE: Final = 1 << 20  # bytes
_LOOK_EVERY_S: Final = 1.0  # whether somebody still waits


class Export(Protocol):
    """Writes models as files."""

    def __call__(
        self, model: str, body: bytes, folder: Path, *, should_stop: Callable[[], bool]
    ) -> ExportedFile:
        """Return the file that a model and a body ask for, written to an empty folder."""
        ...


class ExportWork:
    """One export at a time, each in a folder of its own; a context manager."""

    def __init__(self, export: Export, *, parent: Path) -> None:
        """Keep the collaborators.

        Args:
            export: Does the work.
            parent: Where folders are made; what lies there belongs to this process.
        """
        self._export, self._parent = export, parent
        self._working = threading.Lock()
        self._closing = threading.Event()

    def __enter__(self) -> ExportWork:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give up what is being exported."""
        self._closing.set()

    def answer(self, model: str, body: bytes, gone: Callable[[], bool]) -> Response:
        """Return the answer to a request.

        Args:
            model: That is asked for.
            body: What is asked for.
            gone: Whether nobody waits for it any more.

        Raises:
            Busy: another model is being exported.
            BackendError: what the export was refused with.
        """
        if not self._working.acquire(blocking=False):
            raise Busy("Something else is being exported; ask again when that is done.")
        try:
            folder = self._folder()
            try:
                return _answer(
                    self._export(
                        model, body, folder, should_stop=lambda: gone() or self._closing.is_set()
                    )
                )
            finally:
                # the file that was opened lives on until it is sent
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            self._working.release()

    def _folder(self) -> Path:
        try:
            return Path(tempfile.mkdtemp(dir=self._parent))
        except OSError as error:
            raise EngineError(
                f"The export cannot be written ({error.strerror or error}); see to the room on the "
                "engine's disk and to the permissions of DATA_DIR."
            ) from error


def export_router(work: ExportWork, *, path: str = "/export") -> APIRouter:
    """Return the route at `path`."""
    router = APIRouter()

    @router.post(path)
    async def export_model(request: Request) -> Response:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_BODY_BYTES:
                raise RequestTooLarge("The request is too large; send a smaller sample.")
        model = unquote(request.headers.get(MODEL_HEADER, ""))
        gone = threading.Event()
        watching = asyncio.create_task(_watch(request, gone))
        try:
            return await anyio.to_thread.run_sync(
                work.answer, model, bytes(body), gone.is_set, abandon_on_cancel=True
            )
        finally:
            gone.set()  # a thread that is left behind when the engine stops shall stop, too
            watching.cancel()

    return router


async def _watch(request: Request, gone: threading.Event) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(_LOOK_EVERY_S)
    gone.set()


def _answer(exported: ExportedFile) -> Response:
    file = exported.path.open("rb")

    def pieces() -> Iterator[bytes]:
        with file:
            while piece := file.read(_PIECE):
                yield piece

    headers = {
        "Content-Length": str(exported.path.stat().st_size),
        "Content-Disposition": f'attachment; filename="{exported.name}"',
    }
    notes = " ".join(exported.notes).encode("ascii", "replace").decode()
    if notes:
        headers[NOTES_HEADER] = notes
    return StreamingResponse(pieces(), media_type=exported.media_type, headers=headers)
