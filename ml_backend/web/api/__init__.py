"""/api/v1: sessions, models and inference, for people and programs outside Label Studio.

Errors are problem+json (RFC 9457) with our stable codes; `app.py` writes them.
"""

from __future__ import annotations

from fastapi import APIRouter

from ml_backend.web.api.datasets import datasets_router
from ml_backend.web.api.exports import exports_router
from ml_backend.web.api.infer import infer_router
from ml_backend.web.api.model_uploads import model_uploads_router
from ml_backend.web.api.models import models_router
from ml_backend.web.api.operations import operations_router
from ml_backend.web.api.project_routes import projects_router
from ml_backend.web.api.routing import API_PREFIX, PROBLEM_TYPE, problem_responses
from ml_backend.web.api.sessions import sessions_router
from ml_backend.web.dependencies import WebDependencies

__all__ = ["API_PREFIX", "PROBLEM_TYPE", "make_api"]


def make_api(dependencies: WebDependencies) -> APIRouter:
    """Return the routes of /api/v1 over these collaborators."""
    router = APIRouter(prefix=API_PREFIX, responses=problem_responses())
    router.include_router(infer_router(dependencies))
    router.include_router(operations_router(dependencies))
    router.include_router(sessions_router(dependencies))
    router.include_router(datasets_router(dependencies))
    router.include_router(models_router(dependencies))
    router.include_router(model_uploads_router(dependencies))
    router.include_router(exports_router(dependencies))
    router.include_router(projects_router(dependencies))
    return router
