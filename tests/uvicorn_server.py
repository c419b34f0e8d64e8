"""Serves any ASGI application over real sockets, in a thread, for tests of clients."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

START_WITHIN_S = 10.0


@contextmanager
def uvicorn_server(
    application: Callable[..., Awaitable[None]],
    *,
    port: int = 0,
    certificate: tuple[Path, Path] | None = None,
) -> Iterator[str]:
    """Serve an application and yield the address; stop it at the end.

    Args:
        application: ASGI.
        port: Where; 0 = any that is free.
        certificate: Files of the certificate and its key, for HTTPS.
    """
    options: dict[str, Any] = {}
    if certificate is not None:
        options = {"ssl_certfile": certificate[0], "ssl_keyfile": certificate[1]}
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            host="127.0.0.1",
            port=port,
            log_level="critical",
            lifespan="off",
            timeout_graceful_shutdown=1,
            **options,
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + START_WITHIN_S
    while not server.started:
        if time.monotonic() > deadline:
            raise TimeoutError("uvicorn does not start")
        time.sleep(0.01)
    listening = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http{'' if certificate is None else 's'}://127.0.0.1:{listening}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
