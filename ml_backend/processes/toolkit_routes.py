"""The engine's routes where a toolkit class is served, besides /predict."""

from __future__ import annotations

from typing import Any, Protocol

import anyio.to_thread
import orjson
from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from ml_backend.domain import ProjectKey
from ml_backend.errors import BadRequest
from ml_backend.store.projects import parse_key


class SetsUp(Protocol):
    """Has a project's instance made."""

    def set_up(self, project: ProjectKey, label_config: str, *, budget_s: float) -> str | None:
        """Return the version that the project serves, None when it is not there in time."""
        ...


class SetupBody(BaseModel):
    """A project whose label config is new to a web process."""

    project: str
    label_config: str
    budget_s: float = Field(gt=0, le=3600)


def toolkit_router(predictions: SetsUp, name: str) -> APIRouter:
    """Return the routes.

    Args:
        predictions: Sets the class up.
        name: The class's.
    """
    router = APIRouter()

    @router.post("/toolkit/setup")
    async def set_up(body: SetupBody) -> Response:
        project = parse_key(body.project)

        def prepare() -> str | None:
            return predictions.set_up(project, body.label_config, budget_s=body.budget_s)

        version = await anyio.to_thread.run_sync(prepare, abandon_on_cancel=True)
        return _json({"version": version})

    @router.post("/{path:path}")
    async def not_here(path: str) -> Response:
        raise BadRequest(
            f"This backend serves the toolkit class {name}, so that /{path[:100]} is not to be "
            "had; run one without TOOLKIT_MODEL for it."
        )

    return router


def _json(content: dict[str, Any]) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")
