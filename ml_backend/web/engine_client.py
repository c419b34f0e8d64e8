"""The engine over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import Any

import httpx
import msgspec

from ml_backend.domain import Task
from ml_backend.errors import BackendError, EngineError, EngineUnavailable, error_of
from ml_backend.web.dependencies import EngineAnswer, EngineBrokeOff, EngineCall

GRACE_S = 5.0  # what an engine may take beyond its budget before it counts as hung
KNOCK_TIMEOUT_S = 2.0
TRUSTED_S = 3.0  # after an answer, for how long an engine is taken to be there
MOST_LOOKED_AT_BYTES = 1_000_000
_LEAST_BUDGET_S = 0.1  # an engine refuses 0


class HttpEngineClient:
    """Calls the engine at one address, be it one process or a load balancer before many."""

    def __init__(
        self, url: str, secret: str | None, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._url = url.rstrip("/")
        self._answered_at: float | None = None  # of time.monotonic
        headers = {"Content-Type": "application/json"}
        if secret is not None:
            headers["Authorization"] = f"Bearer {secret}"
        # The engine is ours and near: proxies of the environment are not for it.
        self._client = httpx.AsyncClient(
            headers=headers,
            trust_env=False,
            transport=transport,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=8),
        )

    async def predict(self, call: EngineCall) -> bytes:
        """Return the engine's answer as it came.

        Raises:
            EngineUnavailable: it cannot be reached, is starting or stopping.
            EngineBrokeOff: it went away in the middle of its answer.
            EngineError: it answered with an error, or took too long.
        """
        started = time.monotonic()
        await self._knock()
        budget_s = max(_LEAST_BUDGET_S, call.budget_s - (time.monotonic() - started))
        # not orjson: task data may hold numbers over 64 bits
        body = msgspec.json.encode(
            {
                "release": call.release,
                "project": str(call.project),
                "tasks": [_task_json(task) for task in call.tasks],
                "label_config": call.label_config,
                "budget_s": budget_s,
                **({} if call.context is None else {"context": call.context}),
            }
        )
        timeout = httpx.Timeout(budget_s + GRACE_S, connect=KNOCK_TIMEOUT_S)
        try:
            return await self._answer("POST", "/predict", content=body, timeout=timeout)
        except httpx.TimeoutException as error:
            raise EngineError("The engine did not answer in time; see its log.") from error
        except httpx.HTTPError as error:
            raise EngineBrokeOff(
                f"The engine broke off ({type(error).__name__}); see its log."
            ) from error

    async def ask(
        self,
        path: str,
        *,
        content: bytes | AsyncIterable[bytes],
        headers: Mapping[str, str],
        budget_s: float,
    ) -> EngineAnswer:
        """Send a POST to another route of the engine and return its answer once it begins.

        Raises:
            EngineUnavailable, EngineBrokeOff, EngineError: as `predict`.
            BackendError: what the engine refused with, of the same class.
        """
        await self._knock()
        timeout = httpx.Timeout(budget_s + GRACE_S, connect=KNOCK_TIMEOUT_S)
        request = self._client.build_request(
            "POST", self._url + path, content=content, headers=dict(headers), timeout=timeout
        )
        try:
            answer = await self._client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            self._answered_at = None
            raise EngineUnavailable from error
        except httpx.TimeoutException as error:
            raise EngineError("The engine did not answer in time; see its log.") from error
        except httpx.HTTPError as error:
            raise EngineBrokeOff(
                f"The engine broke off ({type(error).__name__}); see its log."
            ) from error
        if answer.is_success:
            self._answered_at = time.monotonic()
            return _Streamed(answer)
        try:
            await answer.aread()
        except httpx.HTTPError as error:
            raise EngineBrokeOff from error
        finally:
            await answer.aclose()
        raise _refusal(answer)

    async def look(self, path: str, *, timeout_s: float) -> bytes | None:
        """Return what a GET of the engine answers, None where it does not in time."""
        found = bytearray()
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._client.stream("GET", self._url + path, timeout=timeout_s) as answer,
            ):
                if answer.status_code != httpx.codes.OK:
                    return None
                async for piece in answer.aiter_bytes():
                    found += piece
                    if len(found) > MOST_LOOKED_AT_BYTES:
                        return None
        except (httpx.HTTPError, TimeoutError):
            return None
        return bytes(found)

    async def _knock(self) -> None:
        """Find out whether anybody is in, unless somebody answered just now.

        The socket of an engine that is starting takes connections long before the engine does: a
        request sent then would wait unseen, and be answered after Label Studio has gone.
        """
        if self._answered_at is not None and time.monotonic() - self._answered_at < TRUSTED_S:
            return
        try:
            await self._answer("GET", "/health", timeout=KNOCK_TIMEOUT_S)
        except httpx.HTTPError as error:
            raise EngineUnavailable from error

    async def _answer(self, method: str, path: str, **request: Any) -> bytes:
        try:
            answer = await self._client.request(method, self._url + path, **request)
        except httpx.HTTPError as error:
            self._answered_at = None
            if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                raise EngineUnavailable from error
            raise
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            raise EngineUnavailable
        if answer.status_code != httpx.codes.OK:
            raise EngineError(
                f"The engine answered HTTP {answer.status_code} ({answer.text[:200]}); see its log."
            )
        self._answered_at = time.monotonic()
        return answer.content

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _task_json(task: Task) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": task.id, "data": task.data}
    return shown if task.row is None else {**shown, "row": task.row}


class _Streamed:
    """An answer whose body is still arriving."""

    def __init__(self, answer: httpx.Response) -> None:
        self._answer = answer

    @property
    def headers(self) -> Mapping[str, str]:
        return self._answer.headers

    async def pieces(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._answer.aiter_bytes():
                yield piece
        except httpx.HTTPError as error:
            raise EngineBrokeOff(
                f"The engine broke off ({type(error).__name__}); see its log."
            ) from error

    async def close(self) -> None:
        await self._answer.aclose()


def _refusal(answer: httpx.Response) -> BackendError:
    """Return the error that the engine answered with."""
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return EngineUnavailable()
    try:
        said = msgspec.json.decode(answer.content, type=_Refusal)
    except msgspec.DecodeError:
        said = _Refusal(code="", message="")
    return error_of(said.code, said.message) or EngineError(
        f"The engine answered HTTP {answer.status_code} ({answer.text[:200]}); see its log."
    )


class _Refusal(msgspec.Struct):
    code: str
    message: str
