"""/api/v1/whoami and /api/v1/load."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from ml_backend.callers import Role
from ml_backend.service.load import load_of
from ml_backend.web.api.access import caller_of
from ml_backend.web.api.routing import JSON, add_route
from ml_backend.web.dependencies import WebDependencies
from ml_backend.web.engine_look import look_at_engine
from ml_backend.web.json_answer import json_response

_WHOLE = {"type": "integer", "minimum": 0}
CALLER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {
            "type": ["string", "null"],
            "description": "Of the token; null for a program on this machine without one.",
        },
        "role": {"type": "string", "enum": [role.value for role in Role]},
    },
    "required": ["name", "role"],
    "example": {"name": "anna", "role": "train"},
}
LOAD_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "load": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "description": (
                "The mean of running/slots of the trainers and depth/slots of the engine, each at "
                "most 1; without an answer of the engine the first alone. Where no trainer is "
                "there, the first is 1 as soon as a session waits."
            ),
        },
        "queued": {**_WHOLE, "description": "Sessions that wait for a trainer."},
        "running": {**_WHOLE, "description": "Sessions that a trainer works on."},
        "slots": {**_WHOLE, "description": "Trainers that are there, busy or not."},
        "engine": {
            "type": ["object", "null"],
            "description": "null: it does not answer within a second.",
            "properties": {
                "device": {"type": "string"},
                "depth": {**_WHOLE, "description": "Images that wait or are in work."},
                "slots": {**_WHOLE, "description": "Images that it works on at once."},
            },
            "required": ["device", "depth", "slots"],
        },
    },
    "required": ["load", "queued", "running", "slots", "engine"],
    "example": {
        "load": 0.75,
        "queued": 2,
        "running": 1,
        "slots": 1,
        "engine": {"device": "cuda:0", "depth": 4, "slots": 8},
    },
}


def operations_router(dependencies: WebDependencies) -> APIRouter:
    """Return the routes about the caller and about how busy everything is."""
    own = _Operations(dependencies)
    router = APIRouter(tags=["operations"])
    add_route(
        router, "GET", "/whoami", own.whoami, role=Role.PREDICT, answers={JSON: CALLER_SCHEMA}
    )
    add_route(router, "GET", "/load", own.load, role=Role.PREDICT, answers={JSON: LOAD_SCHEMA})
    return router


class _Operations:
    def __init__(self, dependencies: WebDependencies) -> None:
        self._own = dependencies

    def whoami(self, request: Request) -> Response:
        """Show under which name and with which role the request came."""
        caller = caller_of(request)
        return json_response({"name": caller.name, "role": caller.role})

    async def load(self) -> Response:
        """Show how busy trainers and engine are: 0.0 is idle, 1.0 is all slots busy."""
        work, engine = await asyncio.gather(
            run_in_threadpool(self._own.census.work), look_at_engine(self._own.engine)
        )
        return json_response(
            {
                "load": load_of(work, None if engine is None else engine.work),
                "queued": work.queued,
                "running": work.running,
                "slots": work.trainers,
                "engine": None if engine is None else engine.to_json(),
            }
        )
