"""The engine's route for images that programs send: `POST /infer`, JSON or a form.

The body goes to the disk as it arrives, the answer comes from the disk: neither is in memory as a
whole, and nothing is answered before all of it has succeeded.
"""

from __future__ import annotations

import asyncio
import hashlib
import mmap
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import quote

import anyio
import anyio.to_thread
from fastapi import APIRouter, Request, Response
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse

from ml_backend.errors import BadRequest, EngineUnavailable, RequestTooLarge
from ml_backend.service.inference import Inference
from ml_backend.service.inference_request import (
    MOST_IMAGES,
    UPLOADS,
    InferenceRequest,
    Upload,
    read_form_request,
    read_json_request,
)

FORM_TYPE: Final = "multipart/form-data"
MOST_WAITING: Final = 64  # requests, those in work included; their bodies lie on the disk
_MOST_FIELDS: Final = 100
_LONGEST_FIELD: Final = 100_000  # bytes
_WRITTEN_AT_ONCE: Final = 1 << 20


def infer_router(inference: Inference, *, threads: int, max_bytes: int) -> APIRouter:
    """Return the route.

    Args:
        inference: What answers.
        threads: Requests in work at once; others wait.
        max_bytes: Of the largest request.
    """
    router = APIRouter()
    waiting = 0

    @lru_cache(maxsize=1)
    def limiter() -> anyio.CapacityLimiter:
        return anyio.CapacityLimiter(threads)  # made inside the running event loop

    @router.post("/infer")
    async def infer(request: Request) -> Response:
        nonlocal waiting
        if waiting >= MOST_WAITING:
            raise EngineUnavailable(
                f"{MOST_WAITING} requests wait for the engine already; try again later."
            )
        arrived_at = inference.clock()
        waiting += 1
        try:
            with inference.open_work() as work:
                wanted = await _receive(request, work, max_bytes)
                async with _watch(request) as is_deserted:
                    answer = await anyio.to_thread.run_sync(
                        lambda: inference.infer(
                            wanted, work, arrived_at=arrived_at, is_deserted=is_deserted
                        ),
                        limiter=limiter(),
                        abandon_on_cancel=True,
                    )
        finally:
            waiting -= 1
        headers = {"Content-Length": str(answer.size)}
        if answer.file_name is not None:
            headers["Content-Disposition"] = _disposition(answer.file_name)
        return StreamingResponse(answer.pieces(), media_type=answer.media_type, headers=headers)

    return router


def _disposition(name: str) -> str:
    """Return the header that says what a file is called; `name` is letters, digits and _.+-."""
    plain = name.encode("ascii", "ignore").decode().lstrip("._-") or "answer"
    exact = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'attachment; filename="{plain}"{exact}'


@asynccontextmanager
async def _watch(request: Request) -> AsyncGenerator[Callable[[], bool], None]:
    """Give what says whether the caller has gone."""
    gone = threading.Event()

    async def look() -> None:
        # not `is_disconnected`: behind a middleware it never finds out
        while (await request.receive())["type"] != "http.disconnect":
            continue
        gone.set()

    looking = asyncio.create_task(look())
    try:
        yield gone.is_set
    finally:
        gone.set()  # a thread that is left behind when the engine stops shall stop, too
        looking.cancel()


async def _receive(request: Request, work: Path, max_bytes: int) -> InferenceRequest:
    """Return what a body asks for, once all of it has arrived.

    Raises:
        BadRequest: it cannot be understood.
        RequestTooLarge
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    pieces = _bounded(request, max_bytes)
    if kind == FORM_TYPE:
        form = await _read_form(request, pieces)
        try:
            return await anyio.to_thread.run_sync(_form_request, form, work)
        finally:
            await form.close()
    path = work / "body.json"
    await _keep(pieces, path)
    return await anyio.to_thread.run_sync(_json_request, path)


async def _bounded(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    arrived = 0
    async for piece in request.stream():
        arrived += len(piece)
        if arrived > max_bytes:
            raise RequestTooLarge(
                f"The request is larger than MAX_REQUEST_MB ({max_bytes / 1e6:g} MB); send fewer "
                "images at once, or raise MAX_REQUEST_MB."
            )
        yield piece


async def _keep(pieces: AsyncGenerator[bytes, None], path: Path) -> None:
    """Write a body to a file."""
    with path.open("wb") as file:
        part = bytearray()
        async for piece in pieces:
            part += piece
            if len(part) >= _WRITTEN_AT_ONCE:
                await anyio.to_thread.run_sync(file.write, bytes(part))
                part.clear()
        await anyio.to_thread.run_sync(file.write, bytes(part))


def _json_request(path: Path) -> InferenceRequest:
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise BadRequest("The body is empty; send a JSON object that names images.")
        # read where it lies, and let go once nothing points into it
        return read_json_request(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))


async def _read_form(request: Request, pieces: AsyncGenerator[bytes, None]) -> FormData:
    parser = MultiPartParser(
        request.headers,
        pieces,
        max_files=MOST_IMAGES + 1,  # one more, so that the sentence about them is ours
        max_fields=_MOST_FIELDS,
        max_part_size=_LONGEST_FIELD,
    )
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise BadRequest(f"The form cannot be read ({error.message.rstrip('.')}).") from error
    except ClientDisconnect as error:
        raise BadRequest("The form ended before it was complete.") from error


def _form_request(form: FormData, work: Path) -> InferenceRequest:
    fields: list[tuple[str, str]] = []
    uploads: list[Upload] = []
    for name, value in form.multi_items():
        if isinstance(value, str):
            if name == UPLOADS:
                raise BadRequest(f"{UPLOADS} must be files, not texts; send them with a file name.")
            fields.append((name, value))
        elif name == UPLOADS:
            uploads.append(_kept(value, work / f"upload-{len(uploads)}"))
        else:
            raise BadRequest(f"{name[:100]!r} is a file; images are sent as {UPLOADS}.")
    return read_form_request(fields, uploads)


def _kept(upload: UploadFile, path: Path) -> Upload:
    """Copy an upload to where it can be opened by name."""
    digest = hashlib.sha256()
    with path.open("wb") as target:
        while piece := upload.file.read(_WRITTEN_AT_ONCE):
            digest.update(piece)
            target.write(piece)
        size = target.tell()
    return Upload(name=upload.filename or "", path=path, sha256=digest.hexdigest(), size=size)
