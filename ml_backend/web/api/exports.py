"""/api/v1/models/{name}/export: a model as a file for other programs.

An engine writes it, in minutes for a large network; this process passes on what it sends.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from ml_backend.callers import Role
from ml_backend.errors import ModelNotFound, NotFound
from ml_backend.service.export_request import (
    MAX_BODY_BYTES,
    MODEL_HEADER,
    NOTES_HEADER,
    ExportFormat,
    read_export_request,
)
from ml_backend.web.api.models import OwnerQuery
from ml_backend.web.api.routing import JSON, add_route, json_body
from ml_backend.web.dependencies import WebDependencies
from ml_backend.web.passed_on import PassedOn, ask_while_there
from ml_backend.web.requests import read_body

BUDGET_S: Final = 3600.0  # a transformer on a CPU; the engine gives up by then

_TEXT: Final = {"type": "string"}
_BYTES: Final[dict[str, Any]] = {
    "application/zip": {"type": "string", "format": "binary"},
    "application/octet-stream": {"type": "string", "format": "binary"},
}
EXPORT_BODY: Final = json_body(
    {
        "type": "object",
        "properties": {
            "format": {
                "type": "string",
                "enum": [one.value for one in ExportFormat],
                "default": ExportFormat.BIOIMAGEIO.value,
                "description": "A BioImage.IO package (zip), or a checkpoint that Cellpose loads.",
            },
            "model_name": {
                **_TEXT,
                "description": "5 to 128 letters, digits, spaces and _ + - ( ); default: its name.",
            },
            "description": {**_TEXT, "maxLength": 1024},
            "authors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"name": _TEXT, "affiliation": _TEXT},
                    "required": ["name"],
                },
                "description": "At least one, for a BioImage.IO package.",
            },
            "uploader": {
                "type": "object",
                "properties": {"name": _TEXT, "email": {"type": "string", "format": "email"}},
                "required": ["email"],
            },
            "citation": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"text": _TEXT, "doi": _TEXT, "url": _TEXT},
                    "required": ["text"],
                },
            },
            "licence": {
                **_TEXT,
                "description": "SPDX identifier, never laxer than that of the weights (default).",
            },
            "collection": {**_TEXT, "description": "A tag."},
            "sample": {
                **_TEXT,
                "description": "The test image, an NPY file in base64: (Y, X), (Y, X, C) or "
                "(C, Y, X); default: one that is drawn.",
            },
        },
        "additionalProperties": False,
    },
    example={
        "format": "bioimageio",
        "model_name": "Nuclei of liver sections",
        "description": "Outlines nuclei in fluorescence images of liver sections.",
        "authors": [{"name": "A. Author", "affiliation": "An Institute"}],
        "uploader": {"name": "A. Author", "email": "author@example.org"},
    },
)


def exports_router(dependencies: WebDependencies) -> APIRouter:
    """Return the route that exports models."""
    own = _Exports(dependencies)
    router = APIRouter(tags=["models"])
    add_route(
        router,
        "POST",
        "/models/{name}/export",
        own.export,
        role=Role.PREDICT,
        answers=_BYTES,
        body=EXPORT_BODY,
    )
    return router


class _Exports:
    def __init__(self, dependencies: WebDependencies) -> None:
        self._engine = dependencies.engine

    async def export(self, name: str, request: Request, project: OwnerQuery = None) -> Response:
        """Export a model: a tested BioImage.IO package, or a checkpoint that Cellpose loads.

        It takes from half a minute to many; the answer begins when the file is there.
        """
        body = await read_body(request, MAX_BODY_BYTES)
        model = name if project is None else f"{project}/{name}"
        read_export_request(model, body)  # what is wrong with it is said before anybody works
        try:
            answer = await ask_while_there(
                request,
                self._engine.ask(
                    "/export",
                    content=body,
                    headers={"Content-Type": JSON, MODEL_HEADER: quote(model, safe="")},
                    budget_s=BUDGET_S,
                ),
            )
        except ModelNotFound as error:
            raise NotFound(error.message) from None
        passed_on = PassedOn(answer)
        notes = answer.headers.get(NOTES_HEADER.lower())
        if notes is not None:
            passed_on.headers[NOTES_HEADER] = notes
        return passed_on
