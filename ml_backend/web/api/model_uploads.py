"""/api/v1/models: checkpoints of people's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from ml_backend.callers import Role
from ml_backend.errors import BadRequest, EngineError
from ml_backend.learning import UPLOADS
from ml_backend.service.upload_request import UPLOAD_HEADER, checked_upload
from ml_backend.web.api.access import caller_of
from ml_backend.web.api.model_shapes import MODEL_SCHEMA, model_json, model_url
from ml_backend.web.api.routing import JSON, add_route
from ml_backend.web.dependencies import WebDependencies
from ml_backend.web.forms import read_form
from ml_backend.web.json_answer import json_response

BUDGET_S = 900.0  # an engine that has none but a CPU tries Cellpose's largest in minutes
_ROOM_FOR_FIELDS = 100_000  # bytes, beside the file

_TEXT = {"type": "string"}
UPLOAD_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "file": {
                        "type": "string",
                        "format": "binary",
                        "description": (
                            ".safetensors or .pt of Cellpose 4 or of our own network, or a "
                            "BioImage.IO package (.zip) that was exported here."
                        ),
                    },
                    "name": {
                        **_TEXT,
                        "description": (
                            "Small letters, digits and dashes; without it the file's name."
                        ),
                    },
                    "licence": {**_TEXT, "description": "Of the weights; default: unknown."},
                    "description": _TEXT,
                    "diameter": {
                        "type": "number",
                        "description": "Of the objects that it was trained on, in pixels.",
                    },
                },
                "required": ["file"],
            }
        }
    },
}


def model_uploads_router(dependencies: WebDependencies) -> APIRouter:
    """Return the route that takes checkpoints in."""
    own = _Uploads(dependencies)
    router = APIRouter(tags=["models"])
    add_route(
        router,
        "POST",
        "/models",
        own.upload,
        role=Role.ADMIN,
        status=201,
        answers={JSON: MODEL_SCHEMA},
        body=UPLOAD_BODY,
    )
    return router


class _Uploads:
    def __init__(self, dependencies: WebDependencies) -> None:
        self._engine, self._models = dependencies.engine, dependencies.model_desk
        self._folder: Path = dependencies.uploads_folder
        self._max_bytes = dependencies.max_model_bytes

    async def upload(self, request: Request) -> Response:
        """Take in a checkpoint: it is checked and tried, and no code in it is run."""
        try:
            form = await read_form(
                request,
                file_field="file",
                folder=self._folder,
                max_bytes=self._max_bytes + _ROOM_FOR_FIELDS,
                limit_name="MAX_MODEL_MB",
            )
        except OSError as error:
            raise EngineError(
                f"The file cannot be kept ({error.strerror or error}); see to the room on the disk "
                "and to the permissions of DATA_DIR."
            ) from error
        with form:
            if form.file is None:
                raise BadRequest("The form has no file; send the checkpoint as the field 'file'.")
            wanted = checked_upload(
                name=form.fields.get("name"),
                file_name=form.file_name,
                licence=form.fields.get("licence"),
                description=form.fields.get("description"),
                diameter=form.fields.get("diameter"),
                by=caller_of(request).who,
            )
            # before a gigabyte is on its way: an engine that refuses early breaks the transfer off
            await run_in_threadpool(self._models.names.refuse_taken, wanted.name)
            answer = await self._engine.ask(
                "/models",
                content=form.pieces(),
                headers={
                    "Content-Type": "application/octet-stream",
                    UPLOAD_HEADER: wanted.to_query(),
                },
                budget_s=BUDGET_S,
            )
            await answer.close()
        made = await run_in_threadpool(self._models.get, wanted.name, project=str(UPLOADS))
        response = json_response(model_json(made), status=201)
        response.headers["Location"] = model_url(made)
        return response
