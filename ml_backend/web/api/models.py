"""/api/v1/models: all networks by name, and which of them a project serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from ml_backend.callers import Role
from ml_backend.errors import BadRequest, NotFound
from ml_backend.learning import Version
from ml_backend.service.models_listed import ModelKind
from ml_backend.service.project_names import find_project
from ml_backend.service.sessions import DEFAULT_LIMIT
from ml_backend.web.api.access import caller_of
from ml_backend.web.api.model_shapes import (
    ACTIVATE_BODY,
    MODEL_SCHEMA,
    ROLLBACK_BODY,
    model_json,
)
from ml_backend.web.api.pages import AfterQuery, LimitQuery, ProjectQuery, page
from ml_backend.web.api.projects import MAX_BODY_BYTES
from ml_backend.web.api.routing import JSON, add_route
from ml_backend.web.api.shapes import (
    ACTIVATION_SCHEMA,
    PICTURES_SCHEMA,
    activation_json,
    page_schema,
)
from ml_backend.web.dependencies import WebDependencies
from ml_backend.web.json_answer import json_response
from ml_backend.web.requests import read_body

CHECKSUM_HEADER = "X-Checksum-SHA256"

OwnerQuery = Annotated[
    str | None,
    Query(
        max_length=500,
        description=(
            "Whose model it is, where several have one so named: a project's number, \"<id>."
            '<created_at>" or key, a dataset\'s name, or "uploads".'
        ),
    ),
]
_KindQuery = Annotated[ModelKind | None, Query(description="Only models of this kind.")]
_DatasetQuery = Annotated[
    str | None, Query(max_length=500, description="Only what was trained on this dataset.")
]

_Body = TypeVar("_Body")
_ONE, _CHANGE = {JSON: MODEL_SCHEMA}, {JSON: ACTIVATION_SCHEMA}
_PNG: dict[str, Any] = {"image/png": {}}
_BYTES: dict[str, Any] = {"application/octet-stream": {}}


class _ActivateBody(msgspec.Struct):
    project: str | int | None = None
    controls: list[str] | None = None


class _RollbackBody(msgspec.Struct):
    project: str | int
    to_base: bool = False


def models_router(dependencies: WebDependencies) -> APIRouter:
    """Return the routes about models that are there."""
    own = _Models(dependencies)
    router = APIRouter(tags=["models"])
    look, change = Role.PREDICT, Role.ADMIN
    models, changes = {JSON: page_schema(MODEL_SCHEMA)}, {JSON: page_schema(ACTIVATION_SCHEMA)}
    one, pictures = "/models/{name}", "/models/{name}/pictures"
    for method, path, endpoint, role, status, answers, body in (
        ("GET", "/models", own.list, look, 200, models, None),
        ("POST", "/models/rollback", own.rollback, change, 202, _CHANGE, ROLLBACK_BODY),
        ("GET", one, own.show, look, 200, _ONE, None),
        ("DELETE", one, own.delete, change, 204, None, None),
        ("GET", f"{one}/weights", own.weights, look, 200, _BYTES, None),
        ("GET", pictures, own.list_pictures, look, 200, {JSON: PICTURES_SCHEMA}, None),
        ("GET", f"{pictures}/{{file}}", own.picture, look, 200, _PNG, None),
        ("POST", f"{one}/activate", own.activate, change, 202, _CHANGE, ACTIVATE_BODY),
        ("POST", f"{one}/archive", own.archive, change, 200, _ONE, None),
        ("GET", "/activations", own.list_activations, look, 200, changes, None),
    ):
        add_route(
            router, method, path, endpoint,
            role=role, status=status, answers=answers, body=body,
        )  # fmt: skip
    return router


class _Models:
    def __init__(self, dependencies: WebDependencies) -> None:
        self._projects = dependencies.projects
        self._models, self._versions = dependencies.model_desk, dependencies.version_desk

    def list(
        self,
        kind: _KindQuery = None,
        project: ProjectQuery = None,
        dataset: _DatasetQuery = None,
        limit: LimitQuery = DEFAULT_LIMIT,
        after: AfterQuery = None,
    ) -> Response:
        """List models: those that are built in, then those trained and uploaded, newest first."""
        found = self._models.list(kind=kind, project=project, dataset=dataset)
        items = [
            (model.name if model.owner is None else f"{model.owner}/{model.name}", model)
            for model in found
        ]
        return page([(name, model_json(model)) for name, model in items], limit, after)

    def show(self, name: str, project: OwnerQuery = None) -> Response:
        """Show a model: what it was made from, how good it is, what it serves."""
        return json_response(model_json(self._models.get(name, project=project)))

    def weights(self, name: str, project: OwnerQuery = None) -> Response:
        """Send the weights of a model, with their hash in a header."""
        weights = self._models.weights(name, project=project)
        return FileResponse(
            weights.path,
            media_type="application/octet-stream",
            filename=weights.file_name,
            headers={CHECKSUM_HEADER: weights.sha256},
        )

    def list_pictures(self, name: str, project: OwnerQuery = None) -> Response:
        """List the pictures of a model that learned classes: the embedding, each cluster."""
        return json_response({"items": [path.name for path in self._pictures(name, project)]})

    def picture(self, name: str, file: str, project: OwnerQuery = None) -> Response:
        """Show one picture of a model."""
        for path in self._pictures(name, project):
            if path.name == file:
                return Response(path.read_bytes(), media_type="image/png")
        raise NotFound(f"The model has no picture {file[:100]!r}; /pictures lists them.")

    def _pictures(self, name: str, project: str | None) -> tuple[Path, ...]:
        model = self._models.get(name, project=project)
        if model.owner is None:
            raise NotFound(f"The model {model.name!r} is built in and has no pictures.")
        return self._versions.pictures(model.owner, model.name)

    async def activate(self, request: Request, name: str, project: OwnerQuery = None) -> Response:
        """Ask for a model to be served, by its own project or by the one that the body names."""
        body = await _read(request, _ActivateBody, 'name what is meant, like {"project": 3}')
        by = caller_of(request).who
        return await run_in_threadpool(self._activate, name, project, body, by)

    def _activate(self, name: str, owner: str | None, body: _ActivateBody, by: str) -> Response:
        target = None
        if body.project is not None:
            target = find_project(self._projects, str(body.project)).key
        version = self._models.version_for(name, owner=owner, target=target)
        activation = self._versions.activate(
            version.project, version.name, by=by, target=target, controls=body.controls
        )
        return json_response(activation_json(activation), status=202)

    async def rollback(self, request: Request) -> Response:
        """Ask for what a project served before its last change."""
        body = await _read(request, _RollbackBody, 'name a project, like {"project": 3}')
        return await run_in_threadpool(self._roll_back, body, caller_of(request).who)

    def _roll_back(self, body: _RollbackBody, by: str) -> Response:
        key = find_project(self._projects, str(body.project)).key
        ask = self._versions.activate_base if body.to_base else self._versions.rollback
        return json_response(activation_json(ask(key, by=by)), status=202)

    def archive(self, name: str, project: OwnerQuery = None) -> Response:
        """Put a model away: it is listed, and can be served no more."""
        version = self._models.version(name, project=project)
        self._versions.archive(version.project, version.name)
        return self._shown(version)

    def delete(self, name: str, project: OwnerQuery = None) -> Response:
        """Delete a model and its weights."""
        version = self._models.version(name, project=project)
        self._versions.delete(version.project, version.name)
        return Response(status_code=204)

    def list_activations(
        self,
        project: ProjectQuery = None,
        limit: LimitQuery = DEFAULT_LIMIT,
        after: AfterQuery = None,
    ) -> Response:
        """List the changes of what a project or all serve, newest first in each."""
        if project is None:
            keys = [one.key for one in self._projects.all()]
        else:
            keys = [find_project(self._projects, project).key]
        found = [
            (str(activation.id), activation_json(activation))
            for key in keys
            for activation in self._versions.versions.history(key)
        ]
        return page(found, limit, after)

    def _shown(self, version: Version) -> Response:
        model = self._models.get(version.name, project=str(version.project))
        return json_response(model_json(model))


async def _read(request: Request, shape: type[_Body], like: str) -> _Body:
    """Return a request's body; an empty one stands for {}.

    Raises:
        BadRequest, RequestTooLarge
    """
    body = await read_body(request, MAX_BODY_BYTES)
    try:
        return msgspec.json.decode(body or b"{}", type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BadRequest(f"The body must be JSON; {like}.") from None
