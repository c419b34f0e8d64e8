"""/api/v1/datasets: what sessions were asked to learn from, outside Label Studio."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from ml_backend.callers import Role
from ml_backend.datasets import StoredDataset
from ml_backend.errors import NotFound
from ml_backend.service.models_listed import Model
from ml_backend.service.sessions import DEFAULT_LIMIT
from ml_backend.web.api.model_shapes import MODEL_SCHEMA, model_json
from ml_backend.web.api.pages import AfterQuery, LimitQuery, page
from ml_backend.web.api.routing import JSON, add_route
from ml_backend.web.api.session_shapes import DATASET_SCHEMA, dataset_json
from ml_backend.web.api.shapes import page_schema
from ml_backend.web.dependencies import WebDependencies

_MODEL_SCHEMA: dict[str, Any] = {
    **MODEL_SCHEMA,
    "properties": {
        "id": {"type": "string", "description": "Names it wherever a model is named."},
        **MODEL_SCHEMA["properties"],
    },
}


def datasets_router(dependencies: WebDependencies) -> APIRouter:
    """Return the routes about datasets."""
    own = _Datasets(dependencies)
    router = APIRouter(tags=["datasets"])
    for path, endpoint, schema in (
        ("/datasets", own.list, DATASET_SCHEMA),
        ("/datasets/{name}/models", own.models, _MODEL_SCHEMA),
    ):
        answers = {JSON: page_schema(schema)}
        add_route(router, "GET", path, endpoint, role=Role.PREDICT, answers=answers)
    return router


class _Datasets:
    def __init__(self, dependencies: WebDependencies) -> None:
        self._datasets = dependencies.datasets
        self._models = dependencies.model_desk

    def list(self, limit: LimitQuery = DEFAULT_LIMIT, after: AfterQuery = None) -> Response:
        """List the datasets that sessions were asked for with, newest first."""
        last = None if after is None else self._get(after)
        found = self._datasets.all(limit=limit + 1, after=last)
        use = self._datasets.use_of(found)
        return page([(one.name, dataset_json(one, use[one.name])) for one in found], limit, None)

    def models(
        self, name: str, limit: LimitQuery = DEFAULT_LIMIT, after: AfterQuery = None
    ) -> Response:
        """List the models that were trained on a dataset, newest first."""
        found = self._models.list(dataset=name)
        items = [(model.name, {"id": _id_of(model), **model_json(model)}) for model in found]
        return page(items, limit, after)

    def _get(self, name: str) -> StoredDataset:
        found = self._datasets.get(name) if "\0" not in name else None
        if found is None:
            raise NotFound(f"There is no dataset {name[:200]!r}; `GET /datasets` lists them.")
        return found


def _id_of(model: Model) -> str:
    return f"{model.dataset}/{model.name}" if model.namesake else model.name
