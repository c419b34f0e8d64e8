"""Label Studio's routes, as version 1.23.2 calls them (see docs on the protocol).

There is no /delete, /duplicate_model or /train: Label Studio never calls them, and without a
password they would let anyone destroy work.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from urllib.parse import quote

import orjson
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from ml_backend.domain import ProjectKey
from ml_backend.errors import (
    BackendError,
    BadRequest,
    ConfigError,
    EngineUnavailable,
    ModelError,
    ToolkitError,
    Unauthorized,
)
from ml_backend.labelstudio.webhooks import ORIGIN_HEADER, SECRET_HEADER
from ml_backend.store.releases import DEFAULT_PROJECT
from ml_backend.web.auth import is_webhook_welcome
from ml_backend.web.dependencies import WebDependencies
from ml_backend.web.introduction import Introductions
from ml_backend.web.jobs import job_json
from ml_backend.web.json_answer import json_response
from ml_backend.web.metrics import Metrics
from ml_backend.web.openapi import BODIES
from ml_backend.web.prediction import Predictions
from ml_backend.web.requests import (
    SetupRequest,
    origin_of,
    parse_event,
    parse_job,
    parse_predict,
    parse_setup,
    parse_whole_predict,
    read_body,
)
from ml_backend.web.toolkit_setups import ToolkitSetups

_REFUSAL_CHARS = 300
_READABLE = str.maketrans({" ": "_", '"': "'", "<": "(", ">": ")", "/": "|", "%": None})
"""Characters that would be shown percent-encoded, and what stands for them."""


def make_router(dependencies: WebDependencies, metrics: Metrics) -> APIRouter:
    """Return Label Studio's routes over these collaborators."""
    routes = _Routes(dependencies, metrics)
    router = APIRouter()
    for path in ("/", "/health"):
        router.add_api_route(path, routes.health, methods=["HEAD"], include_in_schema=False)
        router.add_api_route(path, routes.health, methods=["GET"])
    for path, endpoint in (
        ("/setup", routes.setup),
        ("/predict", routes.predict),
        ("/webhook", routes.webhook),
        ("/job_status", routes.job_status),
    ):
        router.add_api_route(
            path, endpoint, methods=["POST"], openapi_extra=BODIES[path.removeprefix("/")]
        )
    router.add_api_route("/versions", routes.versions, methods=["GET"])
    router.add_api_route("/refused/{sentence:path}", routes.refused, methods=["GET"])
    return router


class _Routes:
    def __init__(self, dependencies: WebDependencies, metrics: Metrics) -> None:
        self._own = dependencies
        self._metrics = metrics
        self._introductions = Introductions(dependencies)
        self._predictions = Predictions(dependencies, self._introductions)
        toolkit = dependencies.toolkit
        self._toolkit = None if toolkit is None else ToolkitSetups(toolkit, dependencies.engine)

    def health(self) -> Response:
        """Say whether projects can be set up; engines may still be starting or away."""
        resolution = self._own.components.resolution(self._own.models.model)
        release = self._own.releases.active(DEFAULT_PROJECT)
        if resolution is not None and resolution.problem is not None:
            raise EngineUnavailable(resolution.problem)
        if resolution is None or resolution.component is None or release is None:
            raise EngineUnavailable(
                "The engine has not resolved MODEL yet; wait, or see its log if this lasts."
            )
        return json_response(
            {
                "status": "UP",
                "model_class": resolution.component.name,
                "model_version": release.version,
                "device": resolution.device,
                "version": self._own.program_version,
            }
        )

    async def setup(self, request: Request) -> Response:
        """Take in a project and its label config; answer what it serves."""
        body = await read_body(request, self._own.max_request_bytes)
        answer = await run_in_threadpool(self._set_up, body)
        if self._toolkit is not None and answer.status_code == HTTPStatus.OK:
            setup = parse_setup(body)
            if await self._toolkit.set_up(_key(setup), setup.label_config):
                answer = await run_in_threadpool(self._set_up, body)  # it may be another version
        return answer

    def _set_up(self, body: bytes) -> Response:
        setup = parse_setup(body)
        key = _key(setup)
        try:
            if self._toolkit is not None:
                self._toolkit.keep(key, setup.extra_params)
            introduced = self._introductions.introduce(
                key,
                label_config=setup.label_config,
                hostname=setup.hostname,
                access_token=setup.access_token,
            )
        except (ConfigError, ModelError, EngineUnavailable, ToolkitError) as error:
            return _refuse(error)
        return json_response(
            {
                "model_version": introduced.release.version,
                "warnings": list(introduced.warnings),
            }
        )

    def refused(self, sentence: str) -> Response:
        """Answer the address that a refused /setup is sent on to; see `_refuse`."""
        return json_response(
            {"code": "setup.refused", "message": sentence.replace("_", " ")}, status=400
        )

    async def predict(self, request: Request) -> Response:
        """Answer one entry per task: a prediction, or {} where none can be had in time."""
        deadline = time.monotonic() + self._own.predict_budget_s
        body = await read_body(request, self._own.max_request_bytes)
        parse = parse_predict if self._toolkit is None else parse_whole_predict
        wanted = await run_in_threadpool(parse, body)
        del body  # up to MAX_REQUEST_MB, of which the tasks' ids and data are kept
        answer = await self._predictions.answer(wanted, deadline=deadline)
        self._metrics.count_tasks(
            filled=answer.filled, replaced=answer.replaced, total=len(wanted.tasks)
        )
        return Response(answer.body, media_type="application/json")

    async def webhook(self, request: Request) -> Response:
        """Record an event; what comes of it is told by /job_status."""
        body = await read_body(request, self._own.max_request_bytes)
        return await run_in_threadpool(self._record, body, request)

    def _record(self, body: bytes, request: Request) -> Response:
        event = parse_event(body)
        if not is_webhook_welcome(
            action=event.action,
            given_secret=request.headers.get(SECRET_HEADER),
            authorization=request.headers.get("authorization"),
            secret=self._own.webhook_secret,
            basic_auth=self._own.basic_auth,
        ):
            raise Unauthorized(
                "The webhook lacks the right X-Backend-Secret header or Basic auth; "
                "`ml-backend connect` sets them in Label Studio."
            )
        origin = request.headers.get(ORIGIN_HEADER) or request.query_params.get("origin")
        job = self._own.events.record(
            action=event.action,
            payload=body,
            origin=origin_of(origin) if origin else None,
            project_id=event.project_id,
        )
        return json_response({"status": "recorded", "job": job}, status=201)

    def versions(self, project: str | None = None) -> Response:
        """List the versions of a project, or of the one seen last."""
        found = self._own.projects.find(project) if project else self._own.projects.latest()
        if project and found is None:
            raise BadRequest(
                f"Project {project!r} is unknown; Label Studio has not set it up here."
            )
        key = found.key if found else DEFAULT_PROJECT
        return json_response({"versions": self._own.releases.versions(key)})

    async def job_status(self, request: Request) -> Response:
        """Say how far the event of a job, and the training it led to, have come."""
        body = await read_body(request, self._own.max_request_bytes)
        return await run_in_threadpool(self._job_status, body)

    def _job_status(self, body: bytes) -> Response:
        event = self._own.events.get(parse_job(body))
        if event is None:
            return json_response(
                {
                    "code": "job.unknown",
                    "message": "There is no such job; it may have been dropped for space.",
                },
                status=404,
            )
        return json_response(job_json(event, self._own.training.of_event(event)))


def _key(setup: SetupRequest) -> ProjectKey:
    return ProjectKey(
        origin=origin_of(setup.hostname),
        project_id=setup.project_id,
        created_at=setup.created_at,
    )


def _refuse(error: BackendError) -> Response:
    """Return an answer to /setup whose reason a person sees in Label Studio.

    Label Studio shows nothing of an error's body, only requests' "400 Client Error: Bad Request
    for url: <address>". So the answer sends it on to an address that is the sentence.
    """
    sentence = error.message[:_REFUSAL_CHARS].translate(_READABLE).rstrip("._")
    words = quote(sentence, safe="!$'()*+,:;=@")
    # relative, so that it holds behind a path prefix
    return Response(
        orjson.dumps({"code": error.code, "message": error.message}),
        status_code=303,
        media_type="application/json",
        headers={"Location": f"refused/{words}"},
    )
