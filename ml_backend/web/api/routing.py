"""How a route of /api/v1 is added: who may call it, and how OpenAPI describes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from fastapi import APIRouter, Depends, Response

from ml_backend.callers import Role
from ml_backend.web.api.access import allow
from ml_backend.web.api.shapes import PROBLEM_SCHEMA

API_PREFIX: Final = "/api/v1"
PROBLEM_TYPE: Final = "application/problem+json"
PROBLEM_STATUSES: Final = (400, 401, 403, 404, 409, 413, 422, 500, 502, 503)

JSON: Final = "application/json"
ROLE_KEY: Final = "x-role"  # of a route in the OpenAPI description: the role that it needs
SECURITY_SCHEMES: Final[Mapping[str, dict[str, str]]] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": (
            "A token of `ml-backend tokens create`, with the role predict, train or admin; each "
            "may do what the one before it may."
        ),
    },
    "password": {
        "type": "http",
        "scheme": "basic",
        "description": "BASIC_AUTH_USER and BASIC_AUTH_PASS; counts as admin.",
    },
}


def problem_responses() -> dict[int | str, dict[str, Any]]:
    """Return how errors are described."""
    problem = {"content": {PROBLEM_TYPE: {"schema": PROBLEM_SCHEMA}}, "description": "Problem"}
    return dict.fromkeys(PROBLEM_STATUSES, problem)


def add_route(
    router: APIRouter,
    method: str,
    path: str,
    endpoint: Callable[..., Any],
    *,
    role: Role,
    status: int = 200,
    answers: Mapping[str, Any] | None = None,
    body: Mapping[str, Any] | None = None,
    also: Mapping[int, str] | None = None,
) -> None:
    """Add a route.

    Args:
        router: Of a noun.
        method: Such as "GET".
        path: After /api/v1.
        endpoint: Its docstring is the description; it gets the caller with `CallerOf`.
        role: That a caller needs at least.
        status: Of a successful answer.
        answers: Media type -> JSON schema ({} = any) of a successful answer; None = no body.
        body: The request body as OpenAPI describes it (`json_body`).
        also: Other statuses of successful answers, without a body -> what they mean.
    """
    content = {media: {"schema": schema} for media, schema in (answers or {}).items()}
    described: dict[str, Any] = {"description": "Successful"}
    if content:
        described["content"] = content
    router.add_api_route(
        path,
        endpoint,
        methods=[method],
        status_code=status,
        response_class=Response,
        responses={
            status: described,
            **{other: {"description": text} for other, text in (also or {}).items()},
        },
        openapi_extra={
            **({} if body is None else {"requestBody": dict(body)}),
            "security": [{scheme: []} for scheme in SECURITY_SCHEMES],
            ROLE_KEY: role.value,
        },
        dependencies=[Depends(allow(role))],
    )


def json_body(
    schema: Mapping[str, Any], *, example: Any = None, required: bool = True
) -> dict[str, Any]:
    """Return the description of a JSON body."""
    media: dict[str, Any] = {"schema": dict(schema)}
    if example is not None:
        media["example"] = example
    return {"required": required, "content": {JSON: media}}
