"""The OpenAPI description and the application agree."""

from __future__ import annotations

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance

from tests.http.conftest import Backend

ROUTES = {
    *("GET /", "GET /health", "GET /metrics", "GET /versions", "GET /refused/{sentence}"),
    *("POST /setup", "POST /predict", "POST /webhook", "POST /job_status"),
}


def test_no_described_request_is_a_server_error(backend: Backend) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", backend.app)
    operations = [result.ok() for result in schema.get_all_operations()]

    for operation in operations:

        @settings(
            max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(case=operation.as_strategy())
        def ask(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=[not_a_server_error, content_type_conformance])

        ask()

    assert {operation.label for operation in operations} == ROUTES
