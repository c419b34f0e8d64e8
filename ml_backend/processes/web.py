"""The web process: gunicorn with uvicorn workers around the torch-free application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from gunicorn.app.base import BaseApplication


class WebServer(BaseApplication):  # type: ignore[misc]  # gunicorn has no type hints
    """gunicorn, started from code: one settings source, no command line of its own."""

    def __init__(self, create: Callable[[], FastAPI], *, bind: str, workers: int) -> None:
        self._create = create
        self._options: dict[str, Any] = {
            "bind": bind,
            "workers": workers,
            "worker_class": "uvicorn_worker.UvicornWorker",
            # the control socket has one path per user: a second instance would take it over
            "control_socket_disable": True,
            "timeout": 120,  # a worker that does not answer its master this long is replaced
            "graceful_timeout": 10,
            "keepalive": 30,
            "accesslog": None,
            "loglevel": "warning",
        }
        super().__init__()

    def load_config(self) -> None:
        """Hand our options to gunicorn."""
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> FastAPI:
        """Return the application; called in each worker, after the fork."""
        return self._create()
