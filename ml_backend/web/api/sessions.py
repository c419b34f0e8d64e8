"""/api/v1/sessions: trainings."""

from __future__ import annotations

import builtins
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from ml_backend.callers import Caller, Role
from ml_backend.learning import Session, SessionState, SessionStatus
from ml_backend.service.curves import curves_json, curves_picture, curves_title
from ml_backend.service.sessions import DEFAULT_LIMIT
from ml_backend.service.training_parameters import PARAMETERS
from ml_backend.store.session_filter import SessionFilter
from ml_backend.web.api.access import caller_of
from ml_backend.web.api.idempotency import IdempotencyKey, once
from ml_backend.web.api.pages import AfterQuery, LimitQuery, ProjectQuery, page
from ml_backend.web.api.routing import JSON, add_route
from ml_backend.web.api.session_events import EVENT_STREAM, SessionEvents
from ml_backend.web.api.session_shapes import (
    CURVES_SCHEMA,
    DEBUG_SCHEMA,
    PARAMETER_SCHEMA,
    SESSION_SCHEMA,
    debug_json,
    parameter_json,
    session_json,
)
from ml_backend.web.api.session_starts import (
    MAX_BODY_BYTES,
    RESTART_BODY,
    START_BODY,
    SessionStart,
    parse_restart,
    parse_start,
)
from ml_backend.web.api.shapes import page_schema
from ml_backend.web.dependencies import WebDependencies
from ml_backend.web.json_answer import json_response
from ml_backend.web.requests import read_body

_MOST_NAMES = 100  # of one filter

_StateQuery = Annotated[SessionState | None, Query(description="Only sessions in this state.")]
_StatusQuery = Annotated[
    list[SessionStatus] | None,
    Query(
        max_length=len(SessionStatus),
        description=(
            "Only sessions of these statuses; may be given several times. unknown: running, but "
            "the trainer was not heard of for as long as its lease."
        ),
    ),
]
_Name = Annotated[str, Query(max_length=500)]
_DatasetQuery = Annotated[
    list[_Name] | None,
    Query(max_length=_MOST_NAMES, description="Only of these datasets, by name; several times."),
]
_LabelQuery = Annotated[
    list[_Name] | None,
    Query(max_length=_MOST_NAMES, description="Only with one of these labels; several times."),
]
_OwnerQuery = Annotated[
    str | None, Query(max_length=500, description="Only those that this token asked for.")
]
_LastEventId = Annotated[
    str | None,
    Header(description="Id of the last event that was received; the stream goes on after it."),
]
_PNG: dict[str, Any] = {"image/png": {}}
_EVENTS: dict[str, Any] = {
    EVENT_STREAM: {
        "type": "string",
        "description": (
            "Server-sent events: `session` (a session, when it has changed), `point` (a point of "
            "the curves with its epoch), `end` (the final session; nothing follows)."
        ),
        "example": 'id: 1-12-5f3a0c9d2b71\nevent: point\ndata: {"epoch": 12, "loss": 0.41}\n\n',
    }
}
_ONE = {JSON: SESSION_SCHEMA}
_MANY = {JSON: page_schema(SESSION_SCHEMA)}
_PARAMETER_PAGE = {JSON: page_schema(PARAMETER_SCHEMA)}


def sessions_router(dependencies: WebDependencies) -> APIRouter:
    """Return the routes about trainings."""
    own = _Sessions(dependencies)
    router = APIRouter(tags=["sessions"])
    look, train = Role.PREDICT, Role.TRAIN
    one = "/sessions/{session_id}"
    for method, path, endpoint, role, status, answers, body in (
        ("GET", "/sessions", own.list, look, 200, _MANY, None),
        ("POST", "/sessions", own.start, train, 202, _MANY, START_BODY),
        ("GET", one, own.show, look, 200, _ONE, None),
        ("DELETE", one, own.delete, train, 204, None, None),
        ("GET", f"{one}/manifest", own.manifest, look, 200, {JSON: {}}, None),
        ("GET", f"{one}/curves", own.curves, look, 200, {JSON: CURVES_SCHEMA}, None),
        ("GET", f"{one}/curves.png", own.picture, look, 200, _PNG, None),
        ("GET", f"{one}/debug", own.debug, look, 200, {JSON: DEBUG_SCHEMA}, None),
        ("POST", f"{one}/stop", own.stop, train, 202, _ONE, None),
        ("POST", f"{one}/resume", own.resume, train, 202, _ONE, None),
        ("POST", f"{one}/restart", own.restart, train, 202, _ONE, RESTART_BODY),
        ("GET", "/training-parameters", own.parameters, look, 200, _PARAMETER_PAGE, None),
    ):
        add_route(
            router, method, path, endpoint,
            role=role, status=status, answers=answers, body=body,
        )  # fmt: skip
    gone = {204: "The session has ended, and the listener has got that: it need not come back."}
    add_route(router, "GET", f"{one}/events", own.events, role=look, answers=_EVENTS, also=gone)
    return router


class _Sessions:
    def __init__(self, dependencies: WebDependencies) -> None:
        self._own = dependencies
        self._training = dependencies.training
        self._starter = dependencies.starter
        self._events = SessionEvents(dependencies.training, stopping=dependencies.stopping)

    def list(
        self,
        project: ProjectQuery = None,
        state: _StateQuery = None,
        status_types: _StatusQuery = None,
        dataset: _DatasetQuery = None,
        label: _LabelQuery = None,
        owner: _OwnerQuery = None,
        limit: LimitQuery = DEFAULT_LIMIT,
        after: AfterQuery = None,
    ) -> Response:
        """List training sessions, newest first."""
        wanted = SessionFilter(
            statuses=status_types or (), datasets=dataset or (), labels=label or (), owner=owner
        )
        found = self._training.find(
            project=project, state=state, also=wanted, limit=limit + 1, after=after
        )
        return page([(session.id, session_json(session)) for session in found], limit, None)

    async def start(self, request: Request, _key: IdempotencyKey = None) -> Response:
        """Train a project, whatever its policy says, or a dataset.

        A project has a session for each of its networks; one that waits already is returned
        instead of a second.
        """
        body = await read_body(request, MAX_BODY_BYTES)

        async def compute() -> Response:
            begun = await run_in_threadpool(self._start, parse_start(body), caller_of(request))
            items = [session_json(session) for session in begun]
            return json_response({"items": items, "next": None}, status=202)

        return await once(request, self._own.idempotency, compute, body=body)

    async def restart(
        self, request: Request, session_id: str, _key: IdempotencyKey = None
    ) -> Response:
        """Begin a new session that goes on from what one that has ended has learned."""
        body = await read_body(request, MAX_BODY_BYTES)

        async def compute() -> Response:
            epochs = parse_restart(body)
            begun = await run_in_threadpool(self._restart, session_id, epochs, caller_of(request))
            return json_response(session_json(begun), status=202)

        return await once(request, self._own.idempotency, compute, body=body)

    def show(self, session_id: str) -> Response:
        """Show how far a session is and what came of it."""
        return json_response(session_json(self._training.get(session_id)))

    def delete(self, request: Request, session_id: str) -> Response:
        """Forget a session that has ended, with its curves; the model that it made stays."""
        self._training.delete(session_id, by=caller_of(request))
        return Response(status_code=204)

    def manifest(self, session_id: str) -> Response:
        """Show which tasks, annotations and images a session was made of, and their split."""
        return json_response(dict(self._training.get(session_id, with_manifest=True).manifest))

    def curves(self, session_id: str) -> Response:
        """Show loss, learning rate and precision keyed by epoch, {} before the first."""
        return json_response(curves_json(self._training.curve(session_id)))

    def picture(self, session_id: str) -> Response:
        """Draw the curves."""
        session = self._training.get(session_id)
        points = self._training.curve(session.id)
        picture = curves_picture(points, title=curves_title(session))
        return Response(picture, media_type="image/png", headers={"Cache-Control": "no-store"})

    def debug(self, session_id: str) -> Response:
        """Show why a session is in the state it is in, and what to do about it."""
        return json_response(debug_json(self._own.debugger.examine(self._training.get(session_id))))

    async def events(self, session_id: str, last_event_id: _LastEventId = None) -> Response:
        """Follow a session: its state, its curves and its end, as they come.

        A listener that comes back with Last-Event-ID after the end gets 204 and nothing more.
        """
        return await self._events.open(session_id, last_event_id)

    def stop(self, request: Request, session_id: str) -> Response:
        """Ask a session to stop; its checkpoint stays."""
        session = self._training.stop(session_id, by=caller_of(request))
        return json_response(session_json(session), status=202)

    def resume(self, request: Request, session_id: str) -> Response:
        """Queue a session that was stopped or has failed; it goes on from its checkpoint."""
        session = self._training.resume(session_id, by=caller_of(request))
        return json_response(session_json(session), status=202)

    def parameters(self) -> Response:
        """List what a start may say of the training, our defaults and the reference's."""
        items = [parameter_json(parameter) for parameter in PARAMETERS]
        return json_response({"items": items, "next": None})

    def _start(self, wanted: SessionStart, by: Caller) -> builtins.list[Session]:
        if wanted.dataset is not None:
            session = self._starter.start_dataset(
                wanted.dataset,
                by=by,
                parameters=wanted.parameters,
                label=wanted.label,
                model=wanted.model,
            )
            return [session]
        return self._starter.start_project(
            wanted.project or "", by=by, parameters=wanted.parameters, label=wanted.label
        )

    def _restart(self, session_id: str, epochs: int | None, by: Caller) -> Session:
        return self._starter.restart(self._training.get(session_id), by=by, n_epochs=epochs)
