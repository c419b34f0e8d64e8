"""A web application whose engine is real, both in this process, for tests of `infer`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx
import uvicorn
from fastapi import FastAPI

from ml_backend.bootstrap.engine import engine_app
from ml_backend.bootstrap.records import prepare_records
from ml_backend.bootstrap.web import build_web_app
from ml_backend.callers import Caller, Role
from ml_backend.imaging.samples import fluorescent_nuclei
from ml_backend.settings import Settings
from tests.image_server import ImageServer, Reply

URL = "/api/v1/infer"
SHAPE = (180, 220)
PICTURE, TRUTH = fluorescent_nuclei(11, SHAPE, 14)


@dataclass(frozen=True, kw_only=True)
class Site:
    """The two applications, joined, and where their images lie."""

    client: httpx.Client
    root: Path  # of DATA_ROOTS
    images: ImageServer

    def infer(self, **body: Any) -> httpx.Response:
        """Ask with a JSON body."""
        return self.client.post(URL, json=body)

    def upload(self, *files: tuple[str, bytes], **fields: str) -> httpx.Response:
        """Ask with a form."""
        return self.client.post(URL, files=[("images", one) for one in files], data=fields)


@contextmanager
def open_site(folder: Path) -> Iterator[Site]:
    """Yield the two applications, each served on a port of its own; records lie in `folder`."""
    root = folder / "images"
    root.mkdir()
    cv2.imwrite(str(root / "nuclei.png"), PICTURE)
    with listener() as engine_door, listener() as web_door, ImageServer() as images:
        settings = Settings(
            data_dir=folder / "data",
            device="cpu",
            data_roots=str(root),
            allowed_hosts="127.0.0.1",
            engine_url=address(engine_door),
            max_request_mb=100,
        )
        prepare_records(settings)
        images.routes["/nuclei.png"] = Reply(body=(root / "nuclei.png").read_bytes())
        with engine_app(settings) as engine, served(engine, engine_door):
            web = build_web_app(settings, in_process=Caller(name="anna", role=Role.PREDICT))
            with (
                served(web, web_door),
                httpx.Client(base_url=address(web_door), timeout=600, trust_env=False) as client,
            ):
                yield Site(client=client, root=root, images=images)


def listener() -> socket.socket:
    """Return a socket on a free port of this machine."""
    return socket.create_server(("127.0.0.1", 0))


def address(door: socket.socket) -> str:
    """Return the address of who listens there."""
    return f"http://127.0.0.1:{door.getsockname()[1]}"


@contextmanager
def served(app: FastAPI, door: socket.socket) -> Iterator[None]:
    """Serve an application in a thread, as a process would."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()
