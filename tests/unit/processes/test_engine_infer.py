"""The engine's /infer: bodies that arrive in pieces, what is refused, and who still waits."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from ml_backend.errors import BackendError, ImageDecodeError
from ml_backend.processes.engine_infer import MOST_WAITING, infer_router
from ml_backend.service.inference import Deserted, InferenceAnswer
from ml_backend.service.inference_request import InferenceRequest, Place, Upload

FORM = "multipart/form-data; boundary=edge"
JSON = {"Content-Type": "application/json"}


@dataclass
class FakeInference:
    """Answers with what it was asked for, once its gate is open."""

    folder: Path
    gate: threading.Event = field(default_factory=threading.Event)
    failure: BackendError | None = None
    seen: list[InferenceRequest] = field(default_factory=list)
    uploads: list[bytes] = field(default_factory=list)
    deserted: threading.Event = field(default_factory=threading.Event)
    size: int = 3_000_000

    clock = staticmethod(time.monotonic)

    @contextmanager
    def open_work(self) -> Iterator[Path]:
        """Give a folder."""
        with TemporaryDirectory(dir=self.folder) as work:
            yield Path(work)

    def infer(
        self,
        request: InferenceRequest,
        work: Path,
        *,
        arrived_at: float,
        is_deserted: Callable[[], bool],
    ) -> InferenceAnswer:
        """Return an answer of some size, or fail as chosen."""
        self.seen.append(request)
        self.uploads += [one.path.read_bytes() for one in request.sources
                         if isinstance(one, Upload)]  # fmt: skip
        while not self.gate.wait(0.02):
            if is_deserted():
                self.deserted.set()
                raise Deserted
        if self.failure is not None:
            raise self.failure
        file = TemporaryFile(dir=self.folder)  # noqa: SIM115  # the answer closes it
        file.write(b"m" * self.size)
        file.seek(0)
        return InferenceAnswer(
            file=file, size=self.size, media_type="image/tiff", file_name="ä_masks.tif"
        )


@pytest.fixture
def inference(tmp_path: Path) -> FakeInference:
    """Return a fake whose gate is open."""
    fake = FakeInference(folder=tmp_path)
    fake.gate.set()
    return fake


def app_of(inference: FakeInference, *, threads: int = 2, max_bytes: int = 100_000) -> FastAPI:
    """Return the route in an application, errors as the engine answers them."""
    app = FastAPI()
    app.include_router(
        infer_router(inference, threads=threads, max_bytes=max_bytes)  # type: ignore[arg-type]
    )

    @app.exception_handler(BackendError)
    async def refused(_: Request, error: BackendError) -> Response:
        return Response(json.dumps({"code": error.code, "message": error.message}), 422)

    return app


def ask(inference: FakeInference, **request: Any) -> httpx.Response:
    """Send one request."""

    async def send(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/infer", **request)

    return within(app_of(inference), send)


def within(app: FastAPI, work: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
    """Return what `work` returns with a client of an application."""

    async def run() -> Any:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
            return await work(client)

    return asyncio.run(run())


def form(*parts: tuple[str, str | None, bytes]) -> bytes:
    """Return a form's body of (field, file name, content)."""
    lines = []
    for name, file, content in parts:
        named = "" if file is None else f'; filename="{file}"'
        head = f'--edge\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
        lines.append(head.encode() + content + b"\r\n")
    return b"".join(lines) + b"--edge--\r\n"


def test_json_is_read_and_the_answer_streamed(inference: FakeInference) -> None:
    answer = ask(inference, json={"image_paths": ["/a.png"], "diameter": 9})

    (request,) = inference.seen
    assert request.sources == [Place(text="/a.png")]
    assert request.parameters.options.diameter == 9
    assert answer.content == b"m" * inference.size
    assert answer.headers["content-type"] == "image/tiff"
    assert answer.headers["content-length"] == str(inference.size)
    assert answer.headers["content-disposition"] == (
        "attachment; filename=\"masks.tif\"; filename*=UTF-8''%C3%A4_masks.tif"
    )
    assert list(inference.folder.iterdir()) == []


def test_a_form_is_read_and_its_files_lie_on_the_disk(inference: FakeInference) -> None:
    body = form(
        ("images", "a.png", b"one"), ("diameter", None, b"9"), ("images", "b.png", b"t\r\nwo" * 999)
    )

    async def in_pieces() -> AsyncIterator[bytes]:
        for first in range(0, len(body), 7):
            yield body[first : first + 7]

    ask(inference, content=in_pieces(), headers={"Content-Type": FORM})

    (request,) = inference.seen
    assert [one.name for one in request.sources if isinstance(one, Upload)] == ["a.png", "b.png"]
    assert inference.uploads == [b"one", b"t\r\nwo" * 999]
    assert request.parameters.options.diameter == 9
    assert list(inference.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("request_parts", "code", "sentence"),
    [
        ({"content": b"", "headers": JSON}, "request.invalid", "body is empty"),
        ({"content": b"{", "headers": JSON}, "request.invalid", "must be a JSON object"),
        ({"content": b"x"}, "request.invalid", "must be a JSON object"),
        (
            {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
            "request.invalid",
            "Missing boundary",
        ),
        (
            {"content": b"no form", "headers": {"Content-Type": FORM}},
            "request.invalid",
            "form cannot be read",
        ),
        (
            {"content": form(("diameter", None, b"3")), "headers": {"Content-Type": FORM}},
            "request.invalid",
            "no files",
        ),
        (
            {"content": form(("images", None, b"text")), "headers": {"Content-Type": FORM}},
            "request.invalid",
            "must be files, not texts",
        ),
        (
            {"content": form(("other", "a.png", b"x")), "headers": {"Content-Type": FORM}},
            "request.invalid",
            "'other' is a file",
        ),
        (
            {
                "content": form(*[("images", "a.png", b"x")] * 101),
                "headers": {"Content-Type": FORM},
            },
            "request.invalid",
            "more than the 100",
        ),
        (
            {"content": b"[" + b" " * 100_000, "headers": JSON},
            "request.too_large",
            "MAX_REQUEST_MB",
        ),
        (
            {
                "content": form(("images", "a.png", b"x" * 100_000)),
                "headers": {"Content-Type": FORM},
            },
            "request.too_large",
            "MAX_REQUEST_MB",
        ),
    ],
)
def test_a_bad_body_is_one_sentence(
    inference: FakeInference, request_parts: dict[str, Any], code: str, sentence: str
) -> None:
    answer = ask(inference, **request_parts)

    assert answer.status_code == 422
    assert answer.json()["code"] == code
    assert sentence in answer.json()["message"]
    assert inference.seen == []
    assert list(inference.folder.iterdir()) == []


def test_an_error_comes_before_anything_is_answered(inference: FakeInference) -> None:
    inference.failure = ImageDecodeError("image_paths[0]: The file is empty.")

    answer = ask(inference, json={"image_paths": ["/a.png"]})

    assert answer.json() == {
        "code": "image.decode",
        "message": "image_paths[0]: The file is empty.",
    }
    assert list(inference.folder.iterdir()) == []


def test_more_than_the_threads_wait_and_more_than_that_are_refused(tmp_path: Path) -> None:
    fake = FakeInference(folder=tmp_path, size=10)

    async def crowd(client: httpx.AsyncClient) -> tuple[int, list[httpx.Response]]:
        body = {"image_paths": ["/a.png"]}
        asked = [asyncio.create_task(client.post("/infer", json=body)) for _ in range(MOST_WAITING)]
        while len(fake.seen) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        in_work = len(fake.seen)
        refused = await client.post("/infer", json=body)
        assert refused.json()["code"] == "engine.unavailable"
        fake.gate.set()
        answers = await asyncio.gather(*asked)
        later = await client.post("/infer", json=body)
        return in_work, [*answers, later]

    in_work, answers = within(app_of(fake, threads=2), crowd)

    assert in_work == 2
    assert {answer.status_code for answer in answers} == {200}
    assert len(answers) == MOST_WAITING + 1


def test_work_for_somebody_who_has_gone_ends(tmp_path: Path) -> None:
    fake = FakeInference(folder=tmp_path)
    app = app_of(fake)
    body = json.dumps({"image_paths": ["/a.png"]}).encode()
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        while not fake.seen:
            await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        """Nobody is there."""

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/infer",
        "raw_path": b"/infer",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]

    assert fake.deserted.is_set()
    assert list(tmp_path.iterdir()) == []
