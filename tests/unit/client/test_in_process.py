"""An application in this process answers as a server would."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ml_backend.client.in_process import InProcessTransport

PIECE = b"x" * 100_000


class Notes:
    """What happens in the application."""

    def __init__(self) -> None:
        self.happened: list[str] = []
        self.sent = 0
        self.got = 0


@pytest.fixture
def notes() -> Notes:
    """Return an empty notebook."""
    return Notes()


@pytest.fixture
def application(notes: Notes) -> Starlette:
    """Return an application that notes what happens in it."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        notes.happened.append("begins")
        yield
        notes.happened.append("ends")

    async def take(request: Request) -> Response:
        async for piece in request.stream():
            notes.got += len(piece)
        return JSONResponse(
            {
                "got": notes.got,
                "query": request.url.query,
                "path": request.scope["path"],
                "caller": request.client.host if request.client else None,
                "header": request.headers["x-test"],
            }
        )

    async def endless(_: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            while True:
                notes.sent += 1
                yield PIECE

        return StreamingResponse(pieces())

    async def silent(request: Request) -> Response:
        try:
            await asyncio.sleep(60)
        finally:
            notes.happened.append("left")
        return Response()

    async def breaks(_: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"half"
            raise RuntimeError("on purpose")

        return StreamingResponse(pieces())

    return Starlette(
        routes=[
            Route("/take/{rest:path}", take, methods=["POST"]),
            Route("/endless", endless),
            Route("/silent", silent),
            Route("/breaks", breaks),
        ],
        lifespan=lifespan,
    )


@pytest.fixture
def http(application: Starlette) -> Iterator[httpx.Client]:
    """Yield a client of the application."""
    transport = InProcessTransport(application)
    with httpx.Client(transport=transport, base_url="http://localhost:9090") as client:
        yield client


def test_requests_arrive_whole(http: httpx.Client) -> None:
    def body() -> Iterator[bytes]:
        for _ in range(50):
            yield PIECE

    answer = http.post("/take/a%20b%2Fc?d=e%20f", content=body(), headers={"X-Test": "yes"})

    assert answer.json() == {
        "got": 50 * len(PIECE),
        "query": "d=e%20f",
        "path": "/take/a b/c",
        "caller": "127.0.0.1",
        "header": "yes",
    }


def test_bodies_pass_piece_by_piece(http: httpx.Client, notes: Notes) -> None:
    ahead = []

    def body() -> Iterator[bytes]:
        for number in range(20):
            ahead.append(number - notes.got // len(PIECE))
            yield PIECE

    http.post("/take/", content=body(), headers={"X-Test": ""})

    assert max(ahead) <= 1


def test_an_endless_answer_goes_only_as_far_as_it_is_read(http: httpx.Client, notes: Notes) -> None:
    with http.stream("GET", "/endless") as answer:
        pieces = answer.iter_raw()
        for _ in range(10):
            next(pieces)

    assert 10 <= notes.sent <= 14
    assert http.get("/nothing").status_code == 404


def test_what_breaks_off_is_noticed(http: httpx.Client) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="broke its answer off"):
        http.get("/breaks")


def test_a_body_that_cannot_be_read_is_the_callers_error(http: httpx.Client) -> None:
    def body() -> Iterator[bytes]:
        yield PIECE
        raise FileNotFoundError("gone meanwhile")

    with pytest.raises(FileNotFoundError, match="gone meanwhile"):
        http.post("/take/", content=body(), headers={"X-Test": ""})


def test_the_application_begins_and_ends_with_it(application: Starlette, notes: Notes) -> None:
    transport = InProcessTransport(application)

    assert notes.happened == ["begins"]
    transport.close()
    transport.close()

    assert notes.happened == ["begins", "ends"]
    assert "application" not in {thread.name for thread in threading.enumerate()}


def test_an_application_that_does_not_start_leaves_nothing() -> None:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        raise RuntimeError("on purpose")
        yield

    with pytest.raises(RuntimeError, match="does not start"):
        InProcessTransport(Starlette(lifespan=lifespan))

    assert "application" not in {thread.name for thread in threading.enumerate()}


def test_many_threads_ask_at_once(http: httpx.Client) -> None:
    found = []

    def ask() -> None:
        found.append(http.get("/nothing").status_code)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)

    assert found == [404] * 16
