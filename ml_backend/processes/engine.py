"""The engine process: an HTTP server around one device.

For our web processes only: `GET /health`, `GET /metrics`, `POST /predict`, and what other routers
add. Each call names its release, so engines behind a load balancer never answer for one version
with another.
"""

from __future__ import annotations

import hmac
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from types import FrameType
from typing import Any, Protocol

import anyio.to_thread
import orjson
import structlog
import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import BaseModel, Field

from ml_backend.domain import (
    LabelConfig,
    LabelStudioAccess,
    Prediction,
    ProjectKey,
    Release,
    Task,
)
from ml_backend.errors import BackendError, BadRequest, EngineUnavailable
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.processes.engine_metrics import EngineMetrics
from ml_backend.service.predictions import PredictionRequest

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
WAITING_REQUESTS = 256  # each holds one thread until its budget ends

log = structlog.get_logger(__name__)


class Predictions(Protocol):
    """Answers prediction requests."""

    def predict(self, request: PredictionRequest) -> list[Prediction | None]:
        """Return one prediction per task, None where there is none in time."""
        ...

    def depth(self) -> int:
        """Return how many tasks wait or are in work."""
        ...


class TaskBody(BaseModel):
    """A task of a request to the engine."""

    id: int
    data: dict[str, Any]
    row: dict[str, Any] | None = None  # all that Label Studio said of it, for toolkit classes


class PredictBody(BaseModel):
    """A request to the engine."""

    project: str
    release: str
    label_config: str
    tasks: list[TaskBody]
    budget_s: float = Field(gt=0, le=3600)
    context: dict[str, Any] | None = None  # what a person draws, for toolkit classes


class EngineApp:
    """What the engine's routes need, wired by bootstrap."""

    def __init__(
        self,
        predictions: Predictions,
        *,
        find_project: Callable[[str], ProjectKey],
        find_release: Callable[[ProjectKey, str], Release],
        access: Callable[[ProjectKey], LabelStudioAccess],
        device: str,
        slots: int,
        secret: str | None,
        metrics: EngineMetrics,
        parse: Callable[[str], LabelConfig] = parse_label_config,
    ) -> None:
        self._predictions = predictions
        self._find_project = find_project
        self._find_release = find_release
        self._access = access
        self._device = device
        self._slots = slots
        self._secret = secret
        self.metrics = metrics
        self.others_in_work = 0  # requests besides /predict, which counts its own tasks
        self._parse: Callable[[str], LabelConfig] = lru_cache(maxsize=64)(parse)

    def predict(self, body: PredictBody) -> list[dict[str, Any]]:
        """Return Label Studio's entries, one per task; {} where there is none.

        Raises:
            BadRequest: the release is unknown.
            ConfigError: the label config cannot be served.
            EngineUnavailable: the project serves another release by now.
        """
        project = self._find_project(body.project)
        request = PredictionRequest(
            project=project,
            release=self._find_release(project, body.release),
            config=self._parse(body.label_config),
            tasks=[Task(id=task.id, data=task.data, row=task.row) for task in body.tasks],
            access=self._access(project),
            budget_s=body.budget_s,
            context=body.context,
        )
        predictions = self._predictions.predict(request)
        return [{} if entry is None else entry.to_json() for entry in predictions]

    def depth(self) -> int:
        """Return how many tasks, and requests of other kinds, wait or are in work."""
        return self._predictions.depth() + self.others_in_work

    def health(self) -> dict[str, Any]:
        """Return what this engine is and how much it has to do."""
        return {
            "status": "UP",
            "device": self._device,
            "depth": self.depth(),
            "slots": self._slots,
        }

    def allows(self, authorization: str | None) -> bool:
        """Return whether a request with this header comes from our web process."""
        if self._secret is None:
            return True
        expected = f"Bearer {self._secret}"
        return hmac.compare_digest((authorization or "").encode(), expected.encode())


def create_engine_app(engine: EngineApp, *, routers: Sequence[APIRouter] = ()) -> FastAPI:
    """Return the engine's HTTP application; `routers` hold what is asked for besides /predict."""
    app = FastAPI(title="engine", docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def only_our_own(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        if not engine.allows(request.headers.get("authorization")):
            return _json({"code": "request.unauthorized"}, 401)
        started = time.monotonic()
        is_other = request.method == "POST" and request.url.path != "/predict"
        engine.others_in_work += is_other
        try:
            answer = await call_next(request)
        finally:
            engine.others_in_work -= is_other
        route = getattr(request.scope.get("route"), "path", "other")
        engine.metrics.count_request(route, answer.status_code, time.monotonic() - started)
        return answer

    @app.exception_handler(BackendError)
    async def refused(_: Request, error: BackendError) -> Response:
        status = 400 if isinstance(error, BadRequest) else 422
        if isinstance(error, EngineUnavailable):
            status = 503  # so that it is asked again
        return _json({"code": error.code, "message": error.message}, status)

    @app.get("/health")
    async def health() -> Response:
        return _json(engine.health(), 200)

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(engine.metrics.render(), media_type=METRICS_TYPE)

    @app.post("/predict")
    async def predict(body: PredictBody) -> Response:
        results = await anyio.to_thread.run_sync(
            engine.predict, body, limiter=_limiter(), abandon_on_cancel=True
        )
        encoded = await anyio.to_thread.run_sync(orjson.dumps, {"results": results})
        return Response(encoded, media_type="application/json")

    for router in routers:
        app.include_router(router)
    return app


@lru_cache(maxsize=1)
def _limiter() -> anyio.CapacityLimiter:
    return anyio.CapacityLimiter(WAITING_REQUESTS)  # made inside the running event loop


def _json(content: dict[str, Any], status: int) -> Response:
    return Response(orjson.dumps(content), status_code=status, media_type="application/json")


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def serve_engine(app: FastAPI, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; a request in hand may end first."""
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again once it has stopped; then our `with` blocks must unwind
        signal.signal(number, _leave)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, timeout_graceful_shutdown=5, lifespan="off"
    )
    log.info("engine listens", address=str(listener.getsockname()))
    uvicorn.Server(config).run(sockets=[listener])
