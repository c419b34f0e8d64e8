"""/api/v1/versions: trained models, and which of them a project serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from ml_backend.callers import Role
from ml_backend.errors import NotFound
from ml_backend.service.project_names import find_project, find_version
from ml_backend.service.sessions import DEFAULT_LIMIT
from ml_backend.service.versions import ProjectVersions, VersionDesk
from ml_backend.web.api.access import caller_of
from ml_backend.web.api.pages import AfterQuery, LimitQuery, ProjectQuery, page
from ml_backend.web.api.projects import PROJECT_BODY, project_named_in
from ml_backend.web.api.routing import JSON, add_route
from ml_backend.web.api.shapes import (
    ACTIVATION_SCHEMA,
    PICTURES_SCHEMA,
    VERSION_SCHEMA,
    activation_json,
    page_schema,
    version_json,
)
from ml_backend.web.dependencies import WebDependencies
from ml_backend.web.json_answer import json_response

_CHANGE = {JSON: ACTIVATION_SCHEMA}
_PNG: dict[str, Any] = {"image/png": {}}


def models_router(dependencies: WebDependencies) -> APIRouter:
    """Return the routes about models."""
    own = _Models(dependencies)
    router = APIRouter(tags=["models"])
    look, change = Role.PREDICT, Role.ADMIN
    versions, changes = {JSON: page_schema(VERSION_SCHEMA)}, {JSON: page_schema(ACTIVATION_SCHEMA)}
    pictures = "/versions/{name}/pictures"
    for method, path, endpoint, role, status, answers, body in (
        ("GET", "/versions", own.list_versions, look, 200, versions, None),
        ("GET", pictures, own.list_pictures, look, 200, {JSON: PICTURES_SCHEMA}, None),
        ("GET", f"{pictures}/{{file}}", own.version_picture, look, 200, _PNG, None),
        ("POST", "/versions/rollback", own.rollback, change, 202, _CHANGE, PROJECT_BODY),
        ("POST", "/versions/{name}/activate", own.activate, change, 202, _CHANGE, None),
        ("GET", "/activations", own.list_activations, look, 200, changes, None),
    ):
        add_route(
            router, method, path, endpoint,
            role=role, status=status, answers=answers, body=body,
        )  # fmt: skip
    return router


class _Models:
    def __init__(self, dependencies: WebDependencies) -> None:
        self._own = dependencies
        self._versions = VersionDesk(versions=dependencies.versions, releases=dependencies.releases)

    def list_versions(
        self,
        project: ProjectQuery = None,
        limit: LimitQuery = DEFAULT_LIMIT,
        after: AfterQuery = None,
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
        return page(found, limit, after)

    def list_pictures(self, name: str, project: ProjectQuery = None) -> Response:
        """List the pictures of a version that learned classes: the embedding, each cluster."""
        return json_response({"items": [path.name for path in self._pictures(name, project)]})

    def version_picture(self, name: str, file: str, project: ProjectQuery = None) -> Response:
        """Show one picture of a version."""
        for path in self._pictures(name, project):
            if path.name == file:
                return Response(path.read_bytes(), media_type="image/png")
        raise NotFound(f"The version has no picture {file[:100]!r}; /pictures lists them.")

    def _pictures(self, name: str, project: str | None) -> tuple[Path, ...]:
        key = find_version(self._own.projects, self._own.versions, name, project=project)
        return self._versions.pictures(key, name)

    def list_activations(
        self,
        project: ProjectQuery = None,
        limit: LimitQuery = DEFAULT_LIMIT,
        after: AfterQuery = None,
    ) -> Response:
        """List the changes of what a project or all serve, newest first in each."""
        found = [
            (str(activation.id), activation_json(activation))
            for versions in self._of(project)
            for activation in versions.activations
        ]
        return page(found, limit, after)

    def activate(self, request: Request, name: str, project: ProjectQuery = None) -> Response:
        """Ask for a version to be served; name its project where several have one so named."""
        key = find_version(self._own.projects, self._own.versions, name, project=project)
        activation = self._versions.activate(key, name, by=caller_of(request).who)
        return json_response(activation_json(activation), status=202)

    async def rollback(self, request: Request) -> Response:
        """Ask for what a project served before its last change."""
        project = await project_named_in(request)
        return await run_in_threadpool(self._roll_back, project, caller_of(request).who)

    def _roll_back(self, project: str, by: str) -> Response:
        key = find_project(self._own.projects, project).key
        activation = self._versions.rollback(key, by=by)
        return json_response(activation_json(activation), status=202)

    def _of(self, project: str | None) -> list[ProjectVersions]:
        if project is None:
            keys = [one.key for one in self._own.projects.all()]
        else:
            keys = [find_project(self._own.projects, project).key]
        return [self._versions.list(key) for key in keys]
