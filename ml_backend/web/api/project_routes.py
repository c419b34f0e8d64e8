"""/api/v1/projects: the Label Studio projects that are connected, and their outlines as files.

An engine writes the files; this process passes on what it sends.
"""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import quote

import msgspec
from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from ml_backend.callers import Role
from ml_backend.service.export_request import MODEL_HEADER
from ml_backend.service.project_export_request import (
    PROJECT_PATH,
    DataFormat,
    ProjectExportRequest,
    Subject,
)
from ml_backend.service.project_names import find_project
from ml_backend.service.sessions import DEFAULT_LIMIT
from ml_backend.store.projects import Project
from ml_backend.web.api.pages import AfterQuery, LimitQuery, page
from ml_backend.web.api.routing import JSON, add_route
from ml_backend.web.api.shapes import PROJECT_SCHEMA, moment_json, page_schema, project_json
from ml_backend.web.dependencies import WebDependencies
from ml_backend.web.passed_on import PassedOn, ask_while_there

BUDGET_S: Final = 3600.0  # of a project with many thousands of tasks
_ZIP: Final[dict[str, Any]] = {"application/zip": {"type": "string", "format": "binary"}}
_CONNECTED_SCHEMA: Final[dict[str, Any]] = {
    **PROJECT_SCHEMA,
    "properties": {
        **PROJECT_SCHEMA["properties"],
        "release": {"type": ["string", "null"], "description": "Version string that it serves."},
        "label_config_error": {"type": ["string", "null"]},
        "last_seen_at": {"type": ["string", "null"], "format": "date-time"},
    },
}

_WhatQuery = Annotated[Subject, Query(description="What people drew, or what a version found.")]
_FormatQuery = Annotated[
    DataFormat, Query(description="Label images in TIFF with tables, or one COCO file.")
]
_ImagesQuery = Annotated[bool, Query(description="The images' files as well.")]
_EveryQuery = Annotated[
    bool, Query(description="Each person's annotation of a task, not only the one that counts.")
]
_VersionQuery = Annotated[
    str | None, Query(max_length=500, description="Of the predictions; default: what is served.")
]


def projects_router(dependencies: WebDependencies) -> APIRouter:
    """Return the routes about projects."""
    own = _Projects(dependencies)
    router = APIRouter(tags=["projects"])
    look = Role.PREDICT
    listed = {JSON: page_schema(_CONNECTED_SCHEMA)}
    add_route(router, "GET", "/projects", own.list, role=look, answers=listed)
    add_route(router, "GET", "/projects/{project}/export", own.export, role=look, answers=_ZIP)
    return router


class _Projects:
    def __init__(self, dependencies: WebDependencies) -> None:
        self._projects = dependencies.projects
        self._releases = dependencies.releases
        self._engine = dependencies.engine

    def list(self, limit: LimitQuery = DEFAULT_LIMIT, after: AfterQuery = None) -> Response:
        """List the projects that Label Studio has introduced, in the order of their keys."""
        found = sorted(self._projects.all(), key=lambda one: str(one.key))
        return page([(str(one.key), self._json(one)) for one in found], limit, after)

    async def export(
        self,
        request: Request,
        project: str,
        what: _WhatQuery = Subject.ANNOTATIONS,
        format: _FormatQuery = DataFormat.LABELS,
        images: _ImagesQuery = False,
        every: _EveryQuery = False,
        version: _VersionQuery = None,
    ) -> Response:
        """Export annotations or predictions: an archive of label images, or of COCO's JSON."""
        found = await run_in_threadpool(find_project, self._projects, project)
        wanted = ProjectExportRequest(
            what=what, format=format, images=images, every=every, version=version
        )
        answer = await ask_while_there(
            request,
            self._engine.ask(
                PROJECT_PATH,
                content=msgspec.json.encode(wanted),
                headers={"Content-Type": JSON, MODEL_HEADER: quote(str(found.key), safe="")},
                budget_s=BUDGET_S,
            ),
        )
        return PassedOn(answer)

    def _json(self, project: Project) -> dict[str, Any]:
        active = self._releases.active(project.key)
        return {
            **project_json(project.key),
            "release": None if active is None else active.version,
            "label_config_error": project.label_config_error,
            "last_seen_at": moment_json(project.last_seen),
        }
