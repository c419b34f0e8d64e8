"""The OpenAPI description has every route; `test_schemathesis.py` asks for each of them."""

from __future__ import annotations

from tests.http.conftest import Backend

SESSION = "/api/v1/sessions/{session_id}"
ROUTES = {
    *("GET /livez", "GET /readyz", "GET /api/v1/whoami", "GET /api/v1/load"),
    *("GET /", "GET /health", "GET /metrics", "GET /versions", "GET /refused/{sentence}"),
    *("POST /setup", "POST /predict", "POST /webhook", "POST /job_status"),
    *("GET /api/v1/sessions", "POST /api/v1/sessions", f"GET {SESSION}"),
    *(f"GET {SESSION}/manifest", f"GET {SESSION}/curves", f"GET {SESSION}/curves.png"),
    *(f"POST {SESSION}/stop", f"POST {SESSION}/resume", f"POST {SESSION}/restart"),
    *(f"GET {SESSION}/debug", f"GET {SESSION}/events", f"DELETE {SESSION}"),
    "POST /api/v1/infer",
    *("GET /api/v1/projects", "GET /api/v1/projects/{project}/export"),
    *("GET /api/v1/datasets", "GET /api/v1/datasets/{name}/models"),
    "GET /api/v1/training-parameters",
    *("GET /api/v1/models", "POST /api/v1/models", "GET /api/v1/models/{name}"),
    *("POST /api/v1/models/{name}/activate", "POST /api/v1/models/{name}/archive"),
    *("DELETE /api/v1/models/{name}", "GET /api/v1/models/{name}/weights"),
    *("GET /api/v1/models/{name}/pictures", "GET /api/v1/models/{name}/pictures/{file}"),
    *("POST /api/v1/models/rollback", "GET /api/v1/activations"),
    "POST /api/v1/models/{name}/export",
}


def test_the_description_has_these_routes_and_no_others(backend: Backend) -> None:
    described = {
        f"{method.upper()} {path}"
        for path, methods in backend.app.openapi()["paths"].items()
        for method in methods
    }

    assert described == ROUTES
