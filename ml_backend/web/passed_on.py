"""Answers of the engine that go to the caller as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

import anyio
from fastapi import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ml_backend.errors import BadRequest
from ml_backend.web.dependencies import EngineAnswer

_LOOK_EVERY_S: Final = 1.0  # whether the caller is still there
_KEPT: Final = ("content-type", "content-length", "content-disposition")


async def ask_while_there(
    request: Request, asking: Coroutine[Any, Any, EngineAnswer]
) -> EngineAnswer:
    """Return the engine's answer; if the caller goes before it begins, so does our request.

    Args:
        request: Of the caller.
        asking: The call of `EngineClient.ask`.

    Raises:
        BadRequest: the caller has gone.
        BackendError: as `EngineClient.ask`.
    """
    asked = asyncio.create_task(asking)
    try:
        while not asked.done():
            await asyncio.wait({asked}, timeout=_LOOK_EVERY_S)
            if not asked.done() and await request.is_disconnected():
                raise BadRequest("The caller has gone.")
        return asked.result()
    finally:
        asked.cancel()


class PassedOn(StreamingResponse):
    """An engine's answer, of which this process holds one piece at a time."""

    def __init__(self, answer: EngineAnswer) -> None:
        """Take over an answer that has begun; it is closed when it was sent, or cannot be."""
        headers = {name: answer.headers[name] for name in _KEPT if name in answer.headers}
        super().__init__(answer.pieces(), headers=headers)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):  # also where the caller has gone
                await self._answer.close()
