"""How the web process calls the engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import httpx
import orjson
import pytest

from ml_backend.domain import ProjectKey, Task
from ml_backend.errors import EngineError, EngineUnavailable
from ml_backend.web.dependencies import EngineBrokeOff, EngineCall
from ml_backend.web.engine_client import MOST_LOOKED_AT_BYTES, HttpEngineClient

CALL = EngineCall(
    release="cells-1-abc",
    project=ProjectKey(origin="http://ls", project_id=1, created_at=2),
    tasks=[Task(id=7, data={"image": "/a.png"})],
    label_config="<View/>",
    budget_s=3.0,
)


Handle = Callable[[httpx.Request], Awaitable[httpx.Response]]


def ask(handle: Handle, *, times: int = 1) -> Sequence[bytes | BaseException]:
    """Call an engine that answers as `handle` does; return what came of each call."""

    async def call() -> list[bytes | BaseException]:
        transport = httpx.MockTransport(handle)
        client = HttpEngineClient("http://engine/", "secret", transport=transport)
        outcomes: list[bytes | BaseException] = []
        for _ in range(times):
            outcomes += await asyncio.gather(client.predict(CALL), return_exceptions=True)
        await client.close()
        return outcomes

    return asyncio.run(call())


class Engine:
    """Answers both routes, but where a failure or a status is chosen; notes every request."""

    def __init__(
        self,
        *,
        at_health: httpx.HTTPError | int | None = None,
        at_predict: httpx.HTTPError | int | None = None,
        health_s: float = 0.0,
    ) -> None:
        self._outcomes = {"/health": at_health, "/predict": at_predict}
        self._health_s = health_s
        self.seen: list[httpx.Request] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        self.seen.append(request)
        if request.url.path == "/health":
            await asyncio.sleep(self._health_s)
        outcome = self._outcomes[request.url.path]
        if isinstance(outcome, httpx.HTTPError):
            raise outcome
        return httpx.Response(outcome or 200, content=b'{"results": [{}]}')

    def paths(self) -> list[str]:
        """Return what was asked for, in order."""
        return [request.url.path for request in self.seen]


def test_the_call_names_everything_and_the_answer_comes_back_as_it_is() -> None:
    engine = Engine()

    bodies = ask(engine)

    sent = orjson.loads(engine.seen[-1].content)
    assert bodies == [b'{"results": [{}]}']
    assert str(engine.seen[-1].url) == "http://engine/predict"
    assert engine.seen[-1].headers["authorization"] == "Bearer secret"
    assert engine.seen[-1].extensions["timeout"]["read"] == sent["budget_s"] + 5.0
    assert 0 < sent.pop("budget_s") <= 3.0
    assert sent == {
        "release": "cells-1-abc",
        "project": "http://ls#1.2",
        "tasks": [{"id": 7, "data": {"image": "/a.png"}}],
        "label_config": "<View/>",
    }


@pytest.mark.parametrize(
    "failure",
    [httpx.ReadTimeout("slow"), httpx.ConnectError("refused"), httpx.ReadError("broke off"), 503],
    ids=repr,
)
def test_an_engine_that_is_starting_is_sent_no_tasks(failure: httpx.HTTPError | int) -> None:
    engine = Engine(at_health=failure)

    outcomes = ask(engine)

    assert type(outcomes[0]) is EngineUnavailable
    assert engine.paths() == ["/health"]
    assert engine.seen[0].extensions["timeout"]["read"] == 2.0


def test_the_time_spent_at_the_door_is_not_given_to_the_engine_again() -> None:
    engine = Engine(health_s=0.1)

    ask(engine)

    assert orjson.loads(engine.seen[-1].content)["budget_s"] < 2.95


def test_an_engine_that_answered_just_now_is_taken_to_be_there() -> None:
    engine = Engine()

    ask(engine, times=2)

    assert engine.paths() == ["/health", "/predict", "/predict"]


def test_an_engine_that_broke_off_is_not() -> None:
    engine = Engine(at_predict=httpx.ReadError("broke off"))

    ask(engine, times=2)

    assert engine.paths() == ["/health", "/predict"] * 2


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (httpx.ConnectError("refused"), EngineUnavailable),
        (httpx.ConnectTimeout("slow"), EngineUnavailable),
        (httpx.ReadTimeout("slow"), EngineError),
        (httpx.RemoteProtocolError("broke off"), EngineBrokeOff),
        (httpx.ReadError("broke off"), EngineBrokeOff),
        (503, EngineUnavailable),
        (500, EngineError),
        (401, EngineError),
    ],
    ids=repr,
)
def test_what_can_be_asked_again_is_told_from_what_cannot(
    failure: httpx.HTTPError | int, error: type[EngineError]
) -> None:
    outcomes = ask(Engine(at_predict=failure))

    assert type(outcomes[0]) is error


def look(handle: Handle, *, timeout_s: float = 5.0) -> bytes | None:
    """Return what a look at an engine that answers as `handle` does gives."""

    async def call() -> bytes | None:
        transport = httpx.MockTransport(handle)
        client = HttpEngineClient("http://engine/", "secret", transport=transport)
        try:
            return await client.look("/metrics", timeout_s=timeout_s)
        finally:
            await client.close()

    return asyncio.run(call())


def answering(answer: httpx.Response | httpx.HTTPError, *, delay_s: float = 0.0) -> Handle:
    """Return an engine that answers so."""

    async def handle(request: httpx.Request) -> httpx.Response:
        assert (request.method, str(request.url)) == ("GET", "http://engine/metrics")
        assert request.headers["authorization"] == "Bearer secret"
        await asyncio.sleep(delay_s)
        if isinstance(answer, httpx.HTTPError):
            raise answer
        return answer

    return handle


def test_a_look_is_answered_with_what_the_engine_says() -> None:
    assert look(answering(httpx.Response(200, content=b"text"))) == b"text"


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("refused"),
        httpx.ReadError("broke off"),
        httpx.ReadTimeout("slow"),
        httpx.Response(503, content=b"x"),
        httpx.Response(401, content=b"x"),
        httpx.Response(200, content=b"x" * (MOST_LOOKED_AT_BYTES + 1)),
    ],
    ids=repr,
)
def test_a_look_at_an_engine_that_is_not_well_is_nothing(
    answer: httpx.Response | httpx.HTTPError,
) -> None:
    assert look(answering(answer)) is None


def test_a_look_never_waits_longer_than_it_may() -> None:
    started = time.monotonic()

    assert look(answering(httpx.Response(200), delay_s=30.0), timeout_s=0.1) is None
    assert time.monotonic() - started < 5


def test_a_look_where_no_engine_is_named_is_nothing() -> None:
    assert asyncio.run(HttpEngineClient("", None).look("/health", timeout_s=1.0)) is None
