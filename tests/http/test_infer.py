"""/api/v1/infer: passed to the engine as it arrives, passed back as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi.testclient import TestClient

from ml_backend.callers import Role
from ml_backend.errors import (
    BackendError,
    BadRequest,
    EngineError,
    EngineUnavailable,
    ImageDecodeError,
    ModelNotFound,
    OutOfMemory,
)
from ml_backend.web.api.infer import INFER_BODY
from ml_backend.web.dependencies import EngineAnswer, EngineBrokeOff
from tests.fakes import FakeEngine, FakeEngineAnswer
from tests.http.conftest import Backend, Logged, MakeBackend
from tests.http.test_api import local, problem

URL = "/api/v1/infer"
JSON = {"Content-Type": "application/json"}
HEADERS = {
    "content-type": "image/tiff",
    "content-length": "9",
    "content-disposition": 'attachment; filename="a_masks.tif"',
    "x-of-the-engine": "nobody's business",
}


def engine_with(body: list[bytes], headers: Mapping[str, str] = HEADERS) -> FakeEngine:
    """Return an engine that answers so."""
    return FakeEngine(asked_answers={"/infer": FakeEngineAnswer(body=body, headers=headers)})


@pytest.fixture
def backend(make_backend: MakeBackend) -> Backend:
    """Return an application whose engine answers with a file."""
    return make_backend(engine=engine_with([b"one", b"two", b"end"]))


@pytest.fixture
def api(backend: Backend) -> TestClient:
    """Return a caller on this machine."""
    return local(backend)


def test_json_goes_to_the_engine_as_it_is(backend: Backend, api: TestClient) -> None:
    body = b' {"image_paths": ["/a.png"], "diameter": 1e1} '

    answer = api.post(URL, content=body, headers=JSON)

    ((path, headers, sent),) = backend.engine.asked
    assert (path, sent) == ("/infer", body)
    assert headers == {"Content-Type": "application/json"}
    assert answer.status_code == 200
    assert answer.content == b"onetwoend"


def test_a_form_goes_to_the_engine_as_it_is(backend: Backend, api: TestClient) -> None:
    api.post(URL, files=[("images", ("a.png", b"pixels"))], data={"format": "tiff"})

    ((_, headers, sent),) = backend.engine.asked
    assert headers["Content-Type"].startswith("multipart/form-data; boundary=")
    assert b"pixels" in sent
    assert b"tiff" in sent


def test_the_answer_says_what_it_is_and_nothing_more(api: TestClient) -> None:
    answer = api.post(URL, json={"image_paths": ["/a.png"]})

    assert answer.headers["content-type"] == "image/tiff"
    assert answer.headers["content-length"] == "9"
    assert answer.headers["content-disposition"] == 'attachment; filename="a_masks.tif"'
    assert "x-of-the-engine" not in answer.headers


def test_the_engines_answer_is_closed(backend: Backend, api: TestClient) -> None:
    api.post(URL, json={"image_paths": ["/a.png"]})

    answer = backend.engine.asked_answers["/infer"]
    assert isinstance(answer, FakeEngineAnswer)
    assert answer.is_closed


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_is_no_form_is_taken_for_json(
    backend: Backend, api: TestClient, content_type: str
) -> None:
    """As curl sends it that is told nothing."""
    api.post(URL, content=b"{}", headers={"Content-Type": content_type})

    ((_, headers, _),) = backend.engine.asked
    assert headers == {"Content-Type": "application/json"}


def test_a_body_that_is_declared_too_large_never_reaches_the_engine(
    backend: Backend, api: TestClient
) -> None:
    answer = api.post(URL, content=b"x" * 1_000_001, headers=JSON)

    assert "MAX_REQUEST_MB" in problem(answer, 413, "request.too_large")
    assert backend.engine.asked == []


def test_a_body_that_grows_too_large_is_413(backend: Backend, api: TestClient) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(11):
            yield b"x" * 100_000

    answer = api.post(URL, content=pieces(), headers=JSON)

    assert "content-length" not in answer.request.headers
    assert "send fewer images" in problem(answer, 413, "request.too_large")
    assert backend.engine.asked == []


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (BadRequest("diameter is -1; it must be a number."), 400),
        (ImageDecodeError("images 'a.png': The file is empty."), 422),
        (ModelNotFound("There is no model 'x'."), 422),
        (EngineError("The network failed."), 502),
        (EngineUnavailable(), 503),
        (OutOfMemory(), 503),
    ],
)
def test_what_the_engine_refuses_is_a_problem(
    backend: Backend, api: TestClient, failure: BackendError, status: int
) -> None:
    backend.engine.failures.append(failure)

    answer = api.post(URL, json={"image_paths": ["/a.png"]})

    assert problem(answer, status, failure.code) == failure.message


@dataclass
class Slow(FakeEngine):
    """An engine that never answers, and notes that nobody waits any more."""

    cancelled: bool = False

    async def ask(
        self,
        path: str,
        *,
        content: bytes | AsyncIterable[bytes],
        headers: Mapping[str, str],
        budget_s: float,
    ) -> EngineAnswer:
        """Wait for ever."""
        assert not isinstance(content, bytes)
        _ = [piece async for piece in content]
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        raise AssertionError


def test_the_engine_is_not_kept_for_somebody_who_has_gone(make_backend: MakeBackend) -> None:
    engine = Slow()
    backend = make_backend(engine=engine)
    messages: list[dict[str, Any]] = [
        {"type": "http.disconnect"},
        {"type": "http.request", "body": b"}", "more_body": False},
        {"type": "http.request", "body": b"{", "more_body": True},
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop()

    async def send(message: Any) -> None:
        """Nobody is there."""

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": URL,
        "raw_path": URL.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json"), (b"host", b"localhost")],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 9090),
        "scheme": "http",
    }
    asyncio.run(asyncio.wait_for(backend.app(scope, receive, send), timeout=10))  # type: ignore[arg-type]

    assert engine.cancelled


@dataclass
class Breaking:
    """An answer that ends in the middle."""

    headers: Mapping[str, str] = field(default_factory=lambda: dict(HEADERS))
    is_closed: bool = False

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield a piece, then break."""
        yield b"one"
        raise EngineBrokeOff

    async def close(self) -> None:
        """Note that it was closed."""
        self.is_closed = True


def test_half_an_answer_is_never_taken_for_a_whole_one(
    make_backend: MakeBackend, logged: Logged
) -> None:
    answer = Breaking()
    backend = make_backend(engine=FakeEngine(asked_answers={"/infer": answer}))
    strict = TestClient(backend.app, base_url="http://127.0.0.1:9090", client=("127.0.0.1", 50000))

    with pytest.raises(RuntimeError, match="response already started"):
        strict.post(URL, json={"image_paths": ["/a.png"]})

    assert answer.is_closed
    assert logged[-1]["log_level"] == "error"


def test_a_token_of_the_lowest_role_is_enough(backend: Backend) -> None:
    _, secret = backend.own.tokens.create("anna", Role.PREDICT)
    stranger = TestClient(backend.app, raise_server_exceptions=False)

    refused = stranger.post(URL, json={"image_paths": ["/a.png"]})
    answer = stranger.post(
        URL, json={"image_paths": ["/a.png"]}, headers={"Authorization": f"Bearer {secret}"}
    )

    assert refused.status_code == 401
    assert answer.status_code == 200


def test_the_description_names_every_field() -> None:
    described = INFER_BODY["content"]
    json_fields = described["application/json"]["schema"]["properties"]
    form_fields = described["multipart/form-data"]["schema"]["properties"]

    assert set(json_fields) - set(form_fields) == {"image_paths", "input_arrays"}
    assert set(form_fields) - set(json_fields) == {"images"}
    assert json_fields["flow_threshold"]["default"] == 0.4
    assert json_fields["format"]["enum"] == [
        "json", "npy", "png", "tiff", "roi", "geojson", "coco",
    ]  # fmt: skip
