"""The web application: error table, access, request ids and metrics around the routes."""

from __future__ import annotations

import contextlib
import math
import time
import uuid
from collections.abc import AsyncIterator
from http import HTTPStatus

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from ml_backend.callers import Caller
from ml_backend.errors import BackendError, BadRequest, InProgress, Unauthorized
from ml_backend.web.api import API_PREFIX, PROBLEM_TYPE, make_api
from ml_backend.web.api.access import BASIC_CHALLENGE, Admission, NotAdmitted
from ml_backend.web.auth import is_basic_right
from ml_backend.web.dependencies import WebDependencies
from ml_backend.web.json_answer import json_response
from ml_backend.web.labelstudio import make_router
from ml_backend.web.metrics import CONTENT_TYPE, Metrics
from ml_backend.web.openapi import describe_security
from ml_backend.web.readiness import readiness_router
from ml_backend.web.scrape import Scrape
from ml_backend.web.stopping import told_of_end

STATUS_BY_CODE = {
    "request.invalid": 400,
    "request.too_large": 413,
    "request.unauthorized": 401,
    "request.forbidden": 403,
    "request.not_found": 404,
    "request.conflict": 409,
    "request.in_progress": 409,
    "request.key_reused": 422,
    "backend.busy": 503,
    "config.unusable": 422,
    "settings.invalid": 500,
    "image.unusable": 422,
    "image.fetch": 422,
    "image.refused": 422,
    "image.too_large": 422,
    "image.decode": 422,
    "model.unusable": 422,
    "model.not_found": 422,
    "model.checkpoint": 422,
    "engine.failed": 502,
    "engine.unavailable": 503,
    "engine.memory": 503,
    "label_studio.failed": 502,
    "server.failed": 502,
    "server.unreachable": 503,
    "store.failed": 503,
    "session.lost": 409,
    "training.failed": 500,
    "toolkit.failed": 502,
    "backend": 500,
}
"""The HTTP status of every error code; a test keeps it complete."""

_REQUEST_ID = "x-request-id"
_OPEN = frozenset({"/webhook", "/livez", "/readyz"})
"""Routes that see to it themselves, as those of /api/v1 do, or that tell nothing."""

log = structlog.get_logger(__name__)


def create_app(dependencies: WebDependencies, *, in_process: Caller | None = None) -> FastAPI:
    """Return the web application over these collaborators.

    Args:
        dependencies: What it is made of.
        in_process: Who sends every request, where the application is called in the caller's own
            process and listens nowhere: nothing is asked for. Never serve such an application.
    """
    metrics = Metrics()

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        with told_of_end(dependencies.stopping.set):
            yield
        await dependencies.engine.close()

    app = FastAPI(
        title="Label Studio cell backend",
        version=dependencies.program_version,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.admission = Admission(
        dependencies.tokens, basic_auth=dependencies.basic_auth, in_process=in_process
    )
    app.include_router(make_router(dependencies, metrics))
    app.include_router(make_api(dependencies))

    app.include_router(readiness_router(dependencies))
    scrape = Scrape(dependencies, metrics)

    @app.get("/metrics", response_class=Response)
    async def show_metrics() -> Response:
        """Show counters, latencies and gauges in Prometheus's text format."""
        return Response(await scrape.text(), media_type=CONTENT_TYPE)

    describe_security(app)
    app.add_exception_handler(BackendError, _answer_backend_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    basic_auth = dependencies.basic_auth if in_process is None else None
    app.add_middleware(_Gate, basic_auth=basic_auth, metrics=metrics)
    return app


class _Gate:
    """Lets those in who may call; gives every answer its request id and every request its count."""

    def __init__(
        self, app: ASGIApp, *, basic_auth: tuple[str, str] | None, metrics: Metrics
    ) -> None:
        self._app = app
        self._basic_auth = basic_auth
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        request_id = Headers(scope=scope).get(_REQUEST_ID, "")[:64] or uuid.uuid4().hex[:16]
        scope.setdefault("state", {})["request_id"] = request_id
        status: int | None = None

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answered = MutableHeaders(scope=message)
                answered[_REQUEST_ID] = request_id
                answered["x-content-type-options"] = "nosniff"
            await send(message)

        with bound_contextvars(request_id=request_id):  # in every line logged meanwhile
            try:
                await self._enter(scope, receive, send_named)
            except Exception:  # a bug of ours: nobody outside shall see its traceback
                log.exception("request failed unexpectedly", path=scope["path"])
                if status is not None:
                    raise  # half an answer is out; the connection must break
                await _unexpected(Request(scope))(scope, receive, send_named)
            finally:
                self._metrics.count_request(
                    _route_of(scope), status or 500, time.monotonic() - started
                )

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._may_enter(scope["path"], Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        response = _error_response(Request(scope), Unauthorized())
        response.headers["WWW-Authenticate"] = BASIC_CHALLENGE
        await response(scope, receive, send)

    def _may_enter(self, path: str, headers: Headers) -> bool:
        if self._basic_auth is None or path in _OPEN or path.startswith(f"{API_PREFIX}/"):
            return True
        return is_basic_right(headers.get("authorization"), self._basic_auth)


def _route_of(scope: Scope) -> str:
    """Return the path of the route that a request led to, with {names} in it."""
    path: str = getattr(scope.get("route"), "path", "other")
    # newer versions of FastAPI leave out the prefix of an included router
    is_cut = scope["path"].startswith(f"{API_PREFIX}/") and not path.startswith(API_PREFIX)
    return f"{API_PREFIX}{path}" if is_cut and path != "other" else path


def _error_response(request: Request, error: BackendError) -> Response:
    response = _body(request, STATUS_BY_CODE[error.code], error.code, error.message)
    if isinstance(error, InProgress):
        response.headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    if isinstance(error, NotAdmitted):
        for challenge in error.challenges:
            response.headers.append("WWW-Authenticate", challenge)
    return response


async def _answer_backend_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, BackendError)  # noqa: S101  # it is registered for no other
    log.warning("request failed", path=request.url.path, code=error.code, reason=error.message)
    return _error_response(request, error)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # it is registered for no other
    response = _body(request, error.status_code, f"http.{error.status_code}", error.detail)
    response.headers.update(error.headers or {})
    return response


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # it is registered for no other
    problems = [f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors()]
    return _error_response(request, BadRequest(f"The request is invalid: {'; '.join(problems)}."))


def _unexpected(request: Request) -> Response:
    return _body(request, 500, "backend", "Something went wrong; the log has the request's id.")


def _body(request: Request, status: int, code: str, message: str) -> Response:
    request_id = getattr(request.state, "request_id", None)
    if not request.url.path.startswith(f"{API_PREFIX}/"):
        return json_response(
            {"code": code, "message": message, "request_id": request_id}, status=status
        )
    problem = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": message,
        "code": code,
        "request_id": request_id,
    }
    response = json_response(problem, status=status)
    response.headers["content-type"] = PROBLEM_TYPE
    return response
