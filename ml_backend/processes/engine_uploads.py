"""The engine's route for checkpoints that people upload: `POST /models`, the file as the body.

A web process has read the form by then and sends what was said of the file in a header.
"""

from __future__ import annotations

from pathlib import Path

import orjson
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from ml_backend.errors import EngineError, RequestTooLarge
from ml_backend.service.upload_request import UPLOAD_HEADER, read_upload_query
from ml_backend.service.uploads import Uploads

_FILE = "upload"


def uploads_router(uploads: Uploads, *, max_bytes: int) -> APIRouter:
    """Return the route.

    Args:
        uploads: What takes them in.
        max_bytes: Of the largest file.
    """
    router = APIRouter()

    @router.post("/models")
    async def upload(request: Request) -> Response:
        wanted = read_upload_query(request.headers.get(UPLOAD_HEADER, ""))
        await run_in_threadpool(uploads.names.refuse_taken, wanted.name)
        try:
            with uploads.workspace() as folder:
                file = folder / _FILE
                await _receive(request, file, max_bytes)
                version = await run_in_threadpool(uploads.take, file, wanted)
        except OSError as error:
            raise EngineError(
                f"The engine cannot keep the model ({error.strerror or error}); see to the room on "
                "its disk and to the permissions of DATA_DIR."
            ) from error
        return Response(orjson.dumps({"name": version.name}), media_type="application/json")

    return router


async def _receive(request: Request, file: Path, max_bytes: int) -> None:
    """Write a request's body to a file.

    Raises:
        RequestTooLarge: it is over `max_bytes`; nothing more of it is read.
        OSError: it cannot be written.
    """
    arrived = 0
    with file.open("wb") as target:
        async for piece in request.stream():
            arrived += len(piece)
            if arrived > max_bytes:
                raise RequestTooLarge(
                    f"The model is larger than MAX_MODEL_MB ({max_bytes / 1e6:g} MB); raise that "
                    "setting if it is a network."
                )
            await run_in_threadpool(target.write, piece)
