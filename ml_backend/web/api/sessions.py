"""/api/v1/sessions: trainings."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from ml_backend.callers import Role
from ml_backend.learning import SessionState
from ml_backend.service.curves import curves_json, curves_picture, curves_title
from ml_backend.service.sessions import DEFAULT_LIMIT
from ml_backend.web.api.access import caller_of
from ml_backend.web.api.pages import AfterQuery, LimitQuery, ProjectQuery, page
from ml_backend.web.api.projects import PROJECT_BODY, project_named_in
from ml_backend.web.api.routing import JSON, add_route
from ml_backend.web.api.shapes import CURVES_SCHEMA, SESSION_SCHEMA, page_schema, session_json
from ml_backend.web.dependencies import WebDependencies
from ml_backend.web.json_answer import json_response

_StateQuery = Annotated[SessionState | None, Query(description="Only sessions in this state.")]
_PNG: dict[str, Any] = {"image/png": {}}
_ONE = {JSON: SESSION_SCHEMA}
_MANY = {JSON: page_schema(SESSION_SCHEMA)}


def sessions_router(dependencies: WebDependencies) -> APIRouter:
    """Return the routes about trainings."""
    own = _Sessions(dependencies)
    router = APIRouter(tags=["sessions"])
    look, train = Role.PREDICT, Role.TRAIN
    for method, path, endpoint, role, status, answers, body in (
        ("GET", "", own.list, look, 200, _MANY, None),
        ("POST", "", own.start, train, 202, _MANY, PROJECT_BODY),
        ("GET", "/{session_id}", own.show, look, 200, _ONE, None),
        ("GET", "/{session_id}/manifest", own.manifest, look, 200, {JSON: {}}, None),
        ("GET", "/{session_id}/curves", own.curves, look, 200, {JSON: CURVES_SCHEMA}, None),
        (
            "GET",
            "/{session_id}/curves.png",
            own.picture,
            look,
            200,
            _PNG,
            None,
        ),
        ("POST", "/{session_id}/stop", own.stop, train, 202, _ONE, None),
        ("POST", "/{session_id}/resume", own.resume, train, 202, _ONE, None),
    ):
        add_route(
            router, method, f"/sessions{path}", endpoint,
            role=role, status=status, answers=answers, body=body,
        )  # fmt: skip
    return router


class _Sessions:
    def __init__(self, dependencies: WebDependencies) -> None:
        self._training = dependencies.training

    def list(
        self,
        project: ProjectQuery = None,
        state: _StateQuery = None,
        limit: LimitQuery = DEFAULT_LIMIT,
        after: AfterQuery = None,
    ) -> Response:
        """List training sessions, newest first."""
        found = self._training.find(project=project, state=state, limit=limit + 1, after=after)
        return page([(session.id, session_json(session)) for session in found], limit, None)

    async def start(self, request: Request) -> Response:
        """Train a project now, whatever its policy says: a session for each of its networks."""
        project = await project_named_in(request)
        owner = caller_of(request).name
        begun = await run_in_threadpool(self._training.start, project, owner=owner)
        items = [session_json(session) for session in begun]
        return json_response({"items": items, "next": None}, status=202)

    def show(self, session_id: str) -> Response:
        """Show how far a session is and what came of it."""
        return json_response(session_json(self._training.get(session_id)))

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

    def stop(self, session_id: str) -> Response:
        """Ask a session to stop; its checkpoint stays."""
        return json_response(session_json(self._training.stop(session_id)), status=202)

    def resume(self, session_id: str) -> Response:
        """Queue a session that was stopped or has failed; it goes on from its checkpoint."""
        return json_response(session_json(self._training.resume(session_id)), status=202)
