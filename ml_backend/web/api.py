"""/api/v1: training sessions and versions, for people and programs outside Label Studio.

Errors are problem+json (RFC 9457) with our stable codes; `app.py` writes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from ml_backend.errors import BadRequest, NotFound
from ml_backend.learning import SessionState
from ml_backend.service.curves import curves_json, curves_picture, curves_title
from ml_backend.service.project_names import find_project, find_version
from ml_backend.service.sessions import DEFAULT_LIMIT, MAX_LIMIT
from ml_backend.service.versions import ProjectVersions, VersionDesk
from ml_backend.web.api_access import admit_local
from ml_backend.web.api_shapes import (
    ACTIVATION_SCHEMA,
    CURVES_SCHEMA,
    PICTURES_SCHEMA,
    PROBLEM_SCHEMA,
    SESSION_SCHEMA,
    VERSION_SCHEMA,
    activation_json,
    page_schema,
    session_json,
    version_json,
)
from ml_backend.web.dependencies import WebDependencies
from ml_backend.web.labelstudio import json_response
from ml_backend.web.requests import read_body

API_PREFIX = "/api/v1"
PROBLEM_TYPE = "application/problem+json"
_MAX_BODY_BYTES = 100_000
_CALLER = "API"  # who activated a version, while callers have no names

_Project = Annotated[
    str | None, Query(max_length=500, description='Number, "<id>.<created_at>" or key.')
]
_State = Annotated[SessionState | None, Query(description="Only sessions in this state.")]
_Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="At most so many.")]
_After = Annotated[
    str | None, Query(max_length=100, description='"next" of the page before this one.')
]


def make_api(dependencies: WebDependencies) -> APIRouter:
    """Return the routes of /api/v1 over these collaborators."""
    routes = _Routes(dependencies)
    problem = {"content": {PROBLEM_TYPE: {"schema": PROBLEM_SCHEMA}}, "description": "Problem"}
    router = APIRouter(
        prefix=API_PREFIX,
        tags=["api"],
        dependencies=[Depends(admit_local)],
        responses=dict.fromkeys((400, 401, 403, 404, 409, 422, 500, 503), problem),
    )
    for method, path, endpoint, status, schema, body in (
        ("GET", "/sessions", routes.list_sessions, 200, page_schema(SESSION_SCHEMA), None),
        ("POST", "/sessions", routes.start, 202, page_schema(SESSION_SCHEMA), _PROJECT_BODY),
        ("GET", "/sessions/{session_id}", routes.show, 200, SESSION_SCHEMA, None),
        ("GET", "/sessions/{session_id}/manifest", routes.manifest, 200, {}, None),
        ("GET", "/sessions/{session_id}/curves", routes.curves, 200, CURVES_SCHEMA, None),
        ("GET", "/sessions/{session_id}/curves.png", routes.picture, 200, None, None),
        ("POST", "/sessions/{session_id}/stop", routes.stop, 202, SESSION_SCHEMA, None),
        ("POST", "/sessions/{session_id}/resume", routes.resume, 202, SESSION_SCHEMA, None),
        ("GET", "/versions", routes.list_versions, 200, page_schema(VERSION_SCHEMA), None),
        ("GET", "/versions/{name}/pictures", routes.list_pictures, 200, PICTURES_SCHEMA, None),
        ("GET", "/versions/{name}/pictures/{file}", routes.version_picture, 200, None, None),
        ("POST", "/versions/rollback", routes.rollback, 202, ACTIVATION_SCHEMA, _PROJECT_BODY),
        ("POST", "/versions/{name}/activate", routes.activate, 202, ACTIVATION_SCHEMA, None),
        ("GET", "/activations", routes.list_activations, 200, page_schema(ACTIVATION_SCHEMA), None),
    ):
        media = {"image/png": {}} if schema is None else {"application/json": {"schema": schema}}
        router.add_api_route(
            path,
            endpoint,
            methods=[method],
            status_code=status,
            response_class=Response,
            responses={status: {"content": media, "description": "Successful"}},
            openapi_extra=body,
        )
    return router


_PROJECT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "project": {
                            "type": ["string", "integer"],
                            "description": 'Number, "<id>.<created_at>" or key of the project.',
                        }
                    },
                    "required": ["project"],
                },
                "example": {"project": 3},
            }
        },
    }
}


class _ProjectBody(msgspec.Struct):
    project: str | int


class _Routes:
    def __init__(self, dependencies: WebDependencies) -> None:
        self._own = dependencies
        self._training = dependencies.training
        self._versions = VersionDesk(versions=dependencies.versions, releases=dependencies.releases)

    def list_sessions(
        self,
        project: _Project = None,
        state: _State = None,
        limit: _Limit = DEFAULT_LIMIT,
        after: _After = None,
    ) -> Response:
        """List training sessions, newest first."""
        found = self._training.find(project=project, state=state, limit=limit + 1, after=after)
        return _page([(session.id, session_json(session)) for session in found], limit, None)

    async def start(self, request: Request) -> Response:
        """Train a project now, whatever its policy says: a session for each of its networks."""
        project = await _project_of(request)
        begun = await run_in_threadpool(self._training.start, project)
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

    def list_versions(
        self, project: _Project = None, limit: _Limit = DEFAULT_LIMIT, after: _After = None
    ) -> Response:
        """List the trained versions of a project or of all, newest first in each."""
        found = [
            (
                f"{versions.project}/{overview.version.name}",
                version_json(overview.version, serves=list(overview.serving)),
            )
            for versions in self._of(project)
            for overview in versions.versions
        ]
        return _page(found, limit, after)

    def list_pictures(self, name: str, project: _Project = None) -> Response:
        """List the pictures of a version that learned classes: the embedding, each cluster."""
        return json_response({"items": [path.name for path in self._pictures(name, project)]})

    def version_picture(self, name: str, file: str, project: _Project = None) -> Response:
        """Show one picture of a version."""
        for path in self._pictures(name, project):
            if path.name == file:
                return Response(path.read_bytes(), media_type="image/png")
        raise NotFound(f"The version has no picture {file[:100]!r}; /pictures lists them.")

    def _pictures(self, name: str, project: str | None) -> tuple[Path, ...]:
        key = find_version(self._own.projects, self._own.versions, name, project=project)
        return self._versions.pictures(key, name)

    def list_activations(
        self, project: _Project = None, limit: _Limit = DEFAULT_LIMIT, after: _After = None
    ) -> Response:
        """List the changes of what a project or all serve, newest first in each."""
        found = [
            (str(activation.id), activation_json(activation))
            for versions in self._of(project)
            for activation in versions.activations
        ]
        return _page(found, limit, after)

    def activate(self, name: str, project: _Project = None) -> Response:
        """Ask for a version to be served; name its project where several have one so named."""
        key = find_version(self._own.projects, self._own.versions, name, project=project)
        activation = self._versions.activate(key, name, by=_CALLER)
        return json_response(activation_json(activation), status=202)

    async def rollback(self, request: Request) -> Response:
        """Ask for what a project served before its last change."""
        project = await _project_of(request)
        return await run_in_threadpool(self._roll_back, project)

    def _roll_back(self, project: str) -> Response:
        key = find_project(self._own.projects, project).key
        activation = self._versions.rollback(key, by=_CALLER)
        return json_response(activation_json(activation), status=202)

    def _of(self, project: str | None) -> list[ProjectVersions]:
        if project is None:
            keys = [one.key for one in self._own.projects.all()]
        else:
            keys = [find_project(self._own.projects, project).key]
        return [self._versions.list(key) for key in keys]


def _page(items: Sequence[tuple[str, dict[str, Any]]], limit: int, after: str | None) -> Response:
    """Answer a page of (name, item) pairs: those after the one that is named `after`."""
    names = [name for name, _ in items]
    if after is not None and after not in names:
        raise NotFound(f'There is no {after[:100]!r} here; give "after" the "next" of a page.')
    start = 0 if after is None else names.index(after) + 1
    shown = items[start : start + limit]
    is_more = start + limit < len(items)
    body = {"items": [item for _, item in shown], "next": shown[-1][0] if is_more else None}
    return json_response(body)


async def _project_of(request: Request) -> str:
    """Return the project that a request's body names.

    Raises:
        BadRequest, RequestTooLarge
    """
    body = await read_body(request, _MAX_BODY_BYTES)
    try:
        return str(msgspec.json.decode(body, type=_ProjectBody).project)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadRequest(
            'The body must be JSON that names a project, like {"project": 3}.'
        ) from None
