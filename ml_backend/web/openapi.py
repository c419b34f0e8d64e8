"""The shapes of the requests, for the OpenAPI description."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from ml_backend.web.api.routing import SECURITY_SCHEMES


def _body(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": required}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_PROJECT = {"type": "string", "pattern": r"^[0-9]{1,9}\.[0-9]{1,10}$", "example": "1.1795215681"}
_TASK = {
    "type": "object",
    "properties": {
        "id": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
        "data": {"type": "object"},
    },
    "required": ["id", "data"],
}

BODIES: dict[str, dict[str, Any]] = {
    "setup": _body(
        {
            "project": _PROJECT,
            "schema": {"type": "string", "description": "Label config, XML."},
            "hostname": {"type": "string"},
            "access_token": {"type": "string"},
            "extra_params": {},
        },
        ["project", "schema"],
    ),
    "predict": _body(
        {
            "tasks": {"type": "array", "items": _TASK, "minItems": 1},
            "project": _PROJECT,
            "label_config": {"type": "string"},
            "params": {
                "type": "object",
                "properties": {"context": {"type": ["object", "null"]}},
            },
        },
        ["tasks", "project", "label_config"],
    ),
    "webhook": _body(
        {
            "action": {"type": "string", "minLength": 1, "example": "ANNOTATION_CREATED"},
            "project": {"type": "object"},
        },
        ["action"],
    ),
    "job_status": _body({"job": {"type": "string", "minLength": 1}}, ["job"]),
}


def describe_security(app: FastAPI) -> None:
    """Have the application's OpenAPI description say what callers of /api/v1 show."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        described = describe()  # made once; the same object from then on
        schemes = described.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes.update({name: dict(scheme) for name, scheme in SECURITY_SCHEMES.items()})
        return described

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it
