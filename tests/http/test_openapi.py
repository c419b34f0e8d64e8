"""The OpenAPI description and the application agree."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance
from starlette.types import Receive, Scope, Send

from tests.http.conftest import Backend

pytestmark = pytest.mark.unhurried

SESSION = "/api/v1/sessions/{session_id}"
ROUTES = {
    *("GET /", "GET /health", "GET /metrics", "GET /versions", "GET /refused/{sentence}"),
    *("POST /setup", "POST /predict", "POST /webhook", "POST /job_status"),
    *("GET /api/v1/sessions", "POST /api/v1/sessions", f"GET {SESSION}"),
    *(f"GET {SESSION}/manifest", f"GET {SESSION}/curves", f"GET {SESSION}/curves.png"),
    *(f"POST {SESSION}/stop", f"POST {SESSION}/resume"),
    *("GET /api/v1/versions", "POST /api/v1/versions/{name}/activate"),
    *("GET /api/v1/versions/{name}/pictures", "GET /api/v1/versions/{name}/pictures/{file}"),
    *("POST /api/v1/versions/rollback", "GET /api/v1/activations"),
}


def test_no_described_request_is_a_server_error(backend: Backend) -> None:
    statuses: dict[str, set[int]] = {}

    async def from_this_machine(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
        local = {"client": ("127.0.0.1", 50000), "headers": [*headers, (b"host", b"localhost")]}
        await backend.app({**scope, **local}, receive, send)

    schema = schemathesis.openapi.from_asgi("/openapi.json", from_this_machine)
    operations = [result.ok() for result in schema.get_all_operations()]
    backend.setup("1.2")

    for operation in operations:

        @settings(
            max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(case=operation.as_strategy())
        def ask(case: schemathesis.Case) -> None:
            answer = case.call_and_validate(checks=[not_a_server_error, content_type_conformance])
            statuses.setdefault(case.operation.label, set()).add(answer.status_code)

        ask()

    assert {operation.label for operation in operations} == ROUTES
    assert {label for label, seen in statuses.items() if seen <= {401, 403}} == set()
