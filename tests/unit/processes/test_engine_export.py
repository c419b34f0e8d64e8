"""The engine's /export: one at a time, files that are sent and gone, and who still waits."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from ml_backend.errors import BackendError, EngineError
from ml_backend.processes.engine_export import ExportWork, export_router
from ml_backend.processes.export_child import ExportedFile
from ml_backend.service.export_request import MAX_BODY_BYTES, MODEL_HEADER, NOTES_HEADER

CONTENT = b"PK" * 1_500_000


@dataclass
class FakeExport:
    """Writes a file once its gate is open."""

    gate: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)
    stopped: threading.Event = field(default_factory=threading.Event)
    failure: BackendError | None = None
    seen: list[tuple[str, bytes]] = field(default_factory=list)

    def __call__(
        self, model: str, body: bytes, folder: Path, *, should_stop: Callable[[], bool]
    ) -> ExportedFile:
        """Return the file, or fail as chosen."""
        self.seen.append((model, body))
        self.begun.set()
        while not self.gate.wait(0.02):
            if should_stop():
                self.stopped.set()
                raise EngineError("The export was given up.")
        if self.failure is not None:
            raise self.failure
        path = folder / "package.zip"
        path.write_bytes(CONTENT)
        return ExportedFile(
            path=path,
            name="nuclei-1.zip",
            media_type="application/zip",
            notes=("The network found nothing in the test image.", "Ünder CC0."),
        )


@pytest.fixture
def export() -> FakeExport:
    """Return a fake whose gate is open."""
    fake = FakeExport()
    fake.gate.set()
    return fake


def within(
    export: FakeExport, folder: Path, work: Callable[[httpx.AsyncClient], Awaitable[Any]]
) -> Any:
    """Return what `work` returns with a client of the route."""
    app = FastAPI()

    @app.exception_handler(BackendError)
    async def refused(_: Request, error: BackendError) -> Response:
        return Response(json.dumps({"code": error.code, "message": error.message}), 422)

    async def run() -> Any:
        with ExportWork(export, parent=folder) as own:
            app.include_router(export_router(own))
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
                return await work(client)

    return asyncio.run(run())


def post(client: httpx.AsyncClient, **more: Any) -> Awaitable[httpx.Response]:
    headers = {MODEL_HEADER: "leb%C3%A9r%2Fnuclei-1"}
    return client.post("/export", **{"content": b"{}", "headers": headers, **more})


def test_the_file_is_sent_and_gone(export: FakeExport, tmp_path: Path) -> None:
    answer = within(export, tmp_path, post)

    assert export.seen == [("lebér/nuclei-1", b"{}")]
    assert answer.content == CONTENT
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-length"] == str(len(CONTENT))
    assert answer.headers["content-disposition"] == 'attachment; filename="nuclei-1.zip"'
    assert "found nothing" in answer.headers[NOTES_HEADER]
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_leaves_nothing(export: FakeExport, tmp_path: Path) -> None:
    export.failure = EngineError("It does not pass.")
    answer = within(export, tmp_path, post)
    assert answer.json() == {"code": "engine.failed", "message": "It does not pass."}
    assert list(tmp_path.iterdir()) == []


def test_a_second_export_is_refused_until_the_first_is_done(
    export: FakeExport, tmp_path: Path
) -> None:
    export.gate.clear()

    async def both(client: httpx.AsyncClient) -> list[httpx.Response]:
        first = asyncio.ensure_future(post(client))
        await asyncio.to_thread(export.begun.wait, 10)
        second = await post(client)
        export.gate.set()
        return [await first, second, await post(client)]

    first, second, third = within(export, tmp_path, both)
    assert (first.status_code, third.status_code) == (200, 200)
    assert second.json()["code"] == "backend.busy"


def test_an_engine_that_stops_gives_its_export_up(export: FakeExport, tmp_path: Path) -> None:
    export.gate.clear()
    with ExportWork(export, parent=tmp_path) as work:
        thread = threading.Thread(target=lambda: _quietly(work))
        thread.start()
        assert export.begun.wait(10)
    assert export.stopped.wait(10)
    thread.join(10)
    assert not thread.is_alive()
    assert list(tmp_path.iterdir()) == []


def _quietly(work: ExportWork) -> None:
    with pytest.raises(EngineError):
        work.answer("nuclei-1", b"{}", lambda: False)


def test_a_body_that_is_too_large_is_refused(export: FakeExport, tmp_path: Path) -> None:
    async def large(client: httpx.AsyncClient) -> httpx.Response:
        async def pieces() -> Any:
            for _ in range(MAX_BODY_BYTES // 10_000_000 + 2):
                yield b" " * 10_000_000

        return await post(client, content=pieces())

    assert within(export, tmp_path, large).json()["code"] == "request.too_large"
    assert export.seen == []
