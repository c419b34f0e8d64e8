"""Carries requests to an application in this process, with no server between.

httpx can do that for asynchronous clients only. Here an event loop in a thread of its own runs the
application; bodies pass piece by piece, both ways, never more than one ahead of the reader.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from concurrent.futures import Future
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import anyio
import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from anyio.to_thread import run_sync

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
"""An ASGI application."""

_HERE = ("127.0.0.1", 0)
_ASGI = {"version": "3.0"}


class InProcessTransport(httpx.BaseTransport):
    """Carries requests to an ASGI application; closing it ends the application."""

    def __init__(self, application: Application) -> None:
        """Start the application in a thread of its own."""
        self._application = application
        self._opened = ExitStack()
        with ExitStack() as opened:
            self._portal = opened.enter_context(start_blocking_portal(name="application"))
            opened.enter_context(self._portal.wrap_async_context_manager(_started(application)))
            self._opened = opened.pop_all()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the answer to a request once it begins; its body arrives as it is read."""
        exchange = _Exchange(self._portal, self._application, request)
        start = exchange.start()
        return httpx.Response(
            status_code=start["status"], headers=start.get("headers", []), stream=exchange
        )

    def close(self) -> None:
        """End the application."""
        self._opened.close()


@asynccontextmanager
async def _started(application: Application) -> AsyncIterator[None]:
    """Run an application's start now, and its end at the end.

    Raises:
        RuntimeError: it does not start, or does not end as it should.
    """
    tell, told = anyio.create_memory_object_stream[Message](1)
    answer, answers = anyio.create_memory_object_stream[Message](1)
    scope: dict[str, Any] = {"type": "lifespan", "asgi": _ASGI, "state": {}}

    async def run() -> None:
        await application(scope, told.receive, answer.send)

    async def do(moment: str) -> None:
        await tell.send({"type": f"lifespan.{moment}"})
        message = await answers.receive()
        if message["type"] != f"lifespan.{moment}.complete":
            raise RuntimeError(f"the application fails at its {moment}")

    try:
        async with anyio.create_task_group() as tasks, told, tell, answers, answer:
            tasks.start_soon(run)
            await do("startup")
            yield
            await do("shutdown")
    except ExceptionGroup as group:  # of ours, and of what the application itself raised
        raise RuntimeError("the application does not start or end as it should") from group


class _Exchange(httpx.SyncByteStream):
    """A request, and its answer's body."""

    def __init__(
        self, portal: BlockingPortal, application: Application, request: httpx.Request
    ) -> None:
        self._portal, self._application, self._request = portal, application, request
        self._body = iter(request.stream)  # type: ignore[arg-type]  # of a synchronous client
        self._is_body_sent = False
        self._body_error: BaseException | None = None
        self._left = anyio.Event()
        self._send, self._messages = anyio.create_memory_object_stream[Message](1)
        self._run: Future[None] | None = None

    def start(self) -> Message:
        """Return how the answer starts."""
        self._run = self._portal.start_task_soon(self._answer)
        try:
            return self._next()
        except BaseException:  # also a wish to stop: raised again, the application is let go
            self.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        """Yield the body as it arrives."""
        more = True
        while more:
            message = self._next()
            more = message.get("more_body", False)
            if message.get("body"):
                yield message["body"]

    def close(self) -> None:
        """Leave: the application need not answer any further."""
        if self._run is not None:
            self._portal.call(self._left.set)
            self._run.cancel()
            self._run = None
            self._portal.call(self._messages.aclose)

    def _next(self) -> Message:
        message: Message | None
        try:
            message = self._portal.call(self._messages.receive)
        except anyio.EndOfStream:
            message = None
        if self._body_error is not None:
            raise self._body_error
        if message is None:
            raise httpx.RemoteProtocolError("the application broke its answer off")
        return message

    async def _answer(self) -> None:
        async with self._send:  # the end of it is the end of the answer
            await self._application(self._scope(), self._receive, self._send_on)

    async def _send_on(self, message: Message) -> None:
        try:
            await self._send.send(message)
        except anyio.BrokenResourceError:
            raise OSError("nobody reads the answer any more") from None

    async def _receive(self) -> Message:
        if not self._is_body_sent:
            try:
                piece = await run_sync(next, self._body, None)
            except Exception as error:  # of whoever gives the body: it is raised where that is
                self._body_error = error
                self._is_body_sent = True
                return {"type": "http.disconnect"}
            self._is_body_sent = piece is None
            return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}
        await self._left.wait()
        return {"type": "http.disconnect"}

    def _scope(self) -> dict[str, Any]:
        url = self._request.url
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": "1.1",
            "method": self._request.method,
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.partition(b"?")[0],
            "query_string": url.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in self._request.headers.raw],
            "client": _HERE,
            "server": (url.host, url.port),
            "state": {},
        }
