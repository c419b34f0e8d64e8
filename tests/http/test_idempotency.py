"""The header Idempotency-Key on starts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request, Response

from ml_backend.callers import Caller, Role
from ml_backend.errors import Conflict, StoreError
from ml_backend.store.database import Database
from ml_backend.store.idempotency import IdempotencyClaim, IdempotencyKeys, KeptAnswer
from ml_backend.web.api.idempotency import MAX_KEY_CHARS, IdempotencyKey, once
from ml_backend.web.api.routing import add_route
from ml_backend.web.app import create_app
from ml_backend.web.json_answer import json_response
from tests.http.conftest import MakeBackend

Ask = Callable[..., Any]


class Starts:
    """A route that starts something, and what a test may do about it."""

    def __init__(self) -> None:
        self.started: list[bytes] = []
        self.failures: list[Exception | int] = []
        self.is_at_work = asyncio.Event()
        self.may_go_on: asyncio.Event | None = None  # before this it works and works

    async def start(self, request: Request, keys: IdempotencyKeys) -> Response:
        """Start something, once for each key."""
        body = await request.body()

        async def compute() -> Response:
            if self.may_go_on is not None:
                self.is_at_work.set()
                await self.may_go_on.wait()
            if self.failures:
                failure = self.failures.pop(0)
                if isinstance(failure, int):
                    return json_response({"code": "x"}, status=failure)
                raise failure
            self.started.append(body)
            return json_response({"number": len(self.started)}, status=202)

        return await once(request, keys, compute, body=body)


@pytest.fixture
def starts() -> Starts:
    """Return the route's other side."""
    return Starts()


@pytest.fixture
def app(make_backend: MakeBackend, starts: Starts) -> FastAPI:
    """Return an application with one more route."""
    backend = make_backend()
    return with_route(backend.own, starts, name="anna")


def with_route(own: Any, starts: Starts, *, name: str | None) -> FastAPI:
    """Return an application that everybody calls as `name`."""
    app = create_app(own, in_process=Caller(name=name, role=Role.TRAIN))
    router = APIRouter(prefix="/api/v1")

    async def start(request: Request, _key: IdempotencyKey = None) -> Response:
        return await starts.start(request, own.idempotency)

    add_route(router, "POST", "/starts", start, role=Role.TRAIN, status=202, answers={})
    app.include_router(router)
    return app


def asker(app: FastAPI) -> Callable[..., Any]:
    """Return what sends one start and gives its answer."""

    def ask(key: str | bytes | None = "k", body: bytes = b"{}", path: str = "/starts") -> Any:
        async def send() -> httpx.Response:
            headers = {} if key is None else {"Idempotency-Key": key}
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                return await client.post(f"/api/v1{path}", content=body, headers=headers)  # type: ignore[arg-type]  # bytes are fine

        return asyncio.run(send())

    return ask


@pytest.fixture
def ask(app: FastAPI) -> Ask:
    """Return what sends one start and gives its answer."""
    return asker(app)


def test_the_same_start_again_gets_the_first_answer(ask: Ask, starts: Starts) -> None:
    first, second = ask(), ask()

    assert (first.status_code, first.json()) == (202, {"number": 1})
    assert (second.status_code, second.json()) == (202, {"number": 1})
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert second.headers["content-type"] == "application/json"
    assert starts.started == [b"{}"]


def test_without_a_key_every_start_starts(ask: Ask) -> None:
    assert [ask(None).json()["number"], ask(None).json()["number"]] == [1, 2]


def test_another_key_is_another_start(ask: Ask) -> None:
    assert [ask("a").json()["number"], ask("b").json()["number"]] == [1, 2]


@pytest.mark.parametrize("change", [{"body": b"{ }"}, {"path": "/starts?x=1"}])
def test_a_key_with_another_request_is_refused(
    ask: Ask, starts: Starts, change: dict[str, Any]
) -> None:
    ask()

    answer = ask(**change)

    assert (answer.status_code, answer.json()["code"]) == (422, "request.key_reused")
    assert "give each start a new one" in answer.json()["detail"]
    assert len(starts.started) == 1


@pytest.mark.parametrize("failure", [Conflict("no"), RuntimeError("bug"), 422, 500])
def test_a_start_that_fails_does_not_bind_its_key(
    ask: Ask, starts: Starts, failure: Exception | int
) -> None:
    starts.failures = [failure]

    failed, then = ask(), ask(body=b"[]")

    assert failed.status_code >= 400
    assert (then.status_code, then.json()) == (202, {"number": 1})


@pytest.mark.parametrize(
    "key", ["", "x" * (MAX_KEY_CHARS + 1), b"\xc3\xa4", b"a\tb", b"\x7f", b"\xff"]
)
def test_a_key_that_is_none_is_400(ask: Ask, starts: Starts, key: str | bytes) -> None:
    answer = ask(key)

    assert (answer.status_code, answer.json()["code"]) == (400, "request.invalid")
    assert "printable" in answer.json()["detail"]
    assert starts.started == []


@pytest.mark.parametrize("key", ["x", "x" * MAX_KEY_CHARS, 'a "b" c'])
def test_any_printable_key_will_do(ask: Ask, key: str) -> None:
    assert ask(key).status_code == 202
    assert ask(key).headers["idempotency-replayed"] == "true"


def test_a_key_is_its_callers_only(make_backend: MakeBackend, starts: Starts) -> None:
    own = make_backend().own

    numbers = [asker(with_route(own, starts, name=name))().json() for name in ("a", "b", None)]

    assert numbers == [{"number": 1}, {"number": 2}, {"number": 3}]


def test_of_two_at_once_one_works_and_the_other_is_told_to_wait(
    app: FastAPI, starts: Starts
) -> None:
    async def both() -> list[httpx.Response]:
        starts.may_go_on = asyncio.Event()
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            headers = {"Idempotency-Key": "k"}
            working = asyncio.create_task(client.post("/api/v1/starts", headers=headers))
            await starts.is_at_work.wait()
            told = await client.post("/api/v1/starts", headers=headers)
            starts.may_go_on.set()
            return [told, await working]

    told, worked = asyncio.run(asyncio.wait_for(both(), 30))

    assert (told.status_code, told.json()["code"]) == (409, "request.in_progress")
    assert int(told.headers["retry-after"]) >= 1
    assert (worked.status_code, worked.json()) == (202, {"number": 1})


def test_an_answer_that_cannot_be_kept_is_an_answer_all_the_same(
    make_backend: MakeBackend, starts: Starts
) -> None:
    class Failing(IdempotencyKeys):
        def keep(self, claim: IdempotencyClaim, answer: KeptAnswer) -> None:
            raise StoreError("full")

    records: Database = make_backend().own.projects._database
    own = make_backend(idempotency=Failing(records)).own

    ask = asker(with_route(own, starts, name="anna"))

    assert ask().json() == {"number": 1}
    assert ask().status_code == 409  # until the claim runs out: better than a second start
