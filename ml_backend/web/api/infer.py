"""/api/v1/infer: masks for images that programs send or name.

The body goes to the engine as it arrives and the answer to the caller as it comes: this process
holds a piece of each. The engine reads the body, so that nothing here waits for large JSON.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from ml_backend.callers import Role
from ml_backend.errors import BadRequest, RequestTooLarge
from ml_backend.formats.mask_files import FILE_KINDS, JSON_TYPE, ZIP_TYPE
from ml_backend.service.inference_parameters import PARAMETERS
from ml_backend.service.inference_request import MOST_IMAGES
from ml_backend.web.api.routing import add_route
from ml_backend.web.dependencies import EngineAnswer, WebDependencies
from ml_backend.web.passed_on import PassedOn

FORM_TYPE: Final = "multipart/form-data"
_LOOK_EVERY_S: Final = 1.0  # whether the caller is still there

_ARRAY: Final = {"description": "A NPY file in base64, or nested lists with json_safe."}
_FLOWS: Final = ("hsv", "xy", "cellprob", "final_positions")
INFER_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "masks": {
                        "description": "(Y, X), 0 = background, 1..count = instances; "
                        "an NPY file in base64, or nested lists with json_safe."
                    },
                    "shape": {"type": "array", "items": {"type": "integer"}},
                    "count": {"type": "integer"},
                    "scores": {"type": "array", "items": {"type": "number"}},
                    "diameter": {"type": ["number", "null"]},
                    "notes": {"type": "array", "items": {"type": "string"}},
                    "flows": {
                        "type": ["object", "null"],
                        "properties": dict.fromkeys(
                            ("hsv", "xy", "cellprob", "final_positions"), _ARRAY
                        ),
                    },
                },
            },
        },
        "model": {"type": "object"},
    },
    "example": {
        "items": [
            {
                "name": "nuclei.tif",
                "masks": "k05VTVBZAQB2AHsn...",
                "shape": [520, 696],
                "count": 112,
                "scores": [0.93, 0.88],
                "diameter": 24.6,
                "notes": [],
                "flows": None,
            }
        ],
        "model": {"name": "nuclei-1", "architecture": "residual-unet", "licence": "CC0-1.0"},
    },
}
_FILE: Final = {"type": "string", "format": "binary"}
_ANSWERS: Final[dict[str, Any]] = {
    **{kind.media_type: _FILE for kind in FILE_KINDS.values()},
    ZIP_TYPE: _FILE,
    JSON_TYPE: INFER_SCHEMA,
}


def _described(*, as_text: bool) -> dict[str, Any]:
    """Return the parameters for OpenAPI; in a form a list of numbers is a text."""
    listed = {"type": "string", "example": "0,2"}
    return {
        one.name: {
            **(listed if as_text and one.name == "channels" else one.schema),
            "default": one.default,
            "description": one.meaning,
        }
        for one in PARAMETERS
    }


INFER_BODY: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        JSON_TYPE: {
            "schema": {
                "type": "object",
                "properties": {
                    "image_paths": {
                        "type": ["array", "null"],
                        "items": {"type": "string"},
                        "maxItems": MOST_IMAGES,
                        "description": "Addresses, or paths in folders of DATA_ROOTS.",
                    },
                    "input_arrays": {
                        "type": ["array", "null"],
                        "items": {"type": ["string", "array"]},
                        "maxItems": MOST_IMAGES,
                        "description": (
                            "NPY files in base64 or nested lists: (Y, X), (Y, X, C), or (C, Y, X) "
                            "with at most 4 channels. Either these or image_paths."
                        ),
                    },
                    **_described(as_text=False),
                },
                "additionalProperties": False,
            },
            "example": {
                "image_paths": ["https://example.org/nuclei.tif"],
                "diameter": 25,
                "format": "geojson",
            },
        },
        FORM_TYPE: {
            "schema": {
                "type": "object",
                "properties": {
                    "images": {"type": "array", "items": _FILE, "maxItems": MOST_IMAGES},
                    **_described(as_text=True),
                },
                "required": ["images"],
                "additionalProperties": False,
            }
        },
    },
}


def infer_router(dependencies: WebDependencies) -> APIRouter:
    """Return the route that segments images."""
    own = _Infer(dependencies)
    router = APIRouter(tags=["infer"])
    add_route(
        router, "POST", "/infer", own.infer,
        role=Role.PREDICT, answers=_ANSWERS, body=INFER_BODY,
    )  # fmt: skip
    return router


class _Infer:
    def __init__(self, dependencies: WebDependencies) -> None:
        self._engine = dependencies.engine
        self._max_bytes = dependencies.max_request_bytes
        self._budget_s = dependencies.infer_budget_s

    async def infer(self, request: Request) -> Response:
        """Find the instances in images: uploads, addresses, paths or arrays."""
        kind = request.headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() != FORM_TYPE:
            kind = JSON_TYPE  # curl says of every body that it is a form of another kind
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_bytes:
            raise self._too_large()
        return PassedOn(await self._ask(request, kind))

    async def _ask(self, request: Request, kind: str) -> EngineAnswer:
        """Return the engine's answer; if the caller goes before it begins, so does our request."""
        sent = asyncio.Event()
        asked = asyncio.create_task(
            self._engine.ask(
                "/infer",
                content=self._body(request, sent),
                headers={"Content-Type": kind},
                budget_s=self._budget_s,
            )
        )
        try:
            while not asked.done():
                await asyncio.wait({asked}, timeout=_LOOK_EVERY_S)
                # not before: whoever looks takes what arrives
                if sent.is_set() and not asked.done() and await request.is_disconnected():
                    raise BadRequest("The caller has gone.")
            return asked.result()
        finally:
            asked.cancel()

    async def _body(self, request: Request, sent: asyncio.Event) -> AsyncIterator[bytes]:
        arrived = 0
        try:
            async for piece in request.stream():
                arrived += len(piece)
                if arrived > self._max_bytes:
                    raise self._too_large()
                yield piece
        except ClientDisconnect as error:
            raise BadRequest("The request ended before it was complete.") from error
        sent.set()

    def _too_large(self) -> RequestTooLarge:
        return RequestTooLarge(
            f"The request is larger than MAX_REQUEST_MB ({self._max_bytes / 1e6:g} MB); send fewer "
            "images at once, or raise MAX_REQUEST_MB."
        )
