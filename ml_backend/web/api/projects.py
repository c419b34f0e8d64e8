"""Bodies that name a project."""

from __future__ import annotations

import msgspec
from fastapi import Request

from ml_backend.errors import BadRequest
from ml_backend.web.api.routing import json_body
from ml_backend.web.requests import read_body

MAX_BODY_BYTES = 100_000

PROJECT_BODY = json_body(
    {
        "type": "object",
        "properties": {
            "project": {
                "type": ["string", "integer"],
                "description": 'Number, "<id>.<created_at>" or key of the project.',
            }
        },
        "required": ["project"],
    },
    example={"project": 3},
)


class _ProjectBody(msgspec.Struct):
    project: str | int


async def project_named_in(request: Request) -> str:
    """Return the project that a request's body names.

    Raises:
        BadRequest, RequestTooLarge
    """
    body = await read_body(request, MAX_BODY_BYTES)
    try:
        return str(msgspec.json.decode(body, type=_ProjectBody).project)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadRequest(
            'The body must be JSON that names a project, like {"project": 3}.'
        ) from None
