"""Who may use /api/v1: every route, with every kind of credentials."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from ml_backend.callers import Caller, Role
from ml_backend.web.api.routing import ROLE_KEY
from ml_backend.web.app import create_app
from tests.http.conftest import Backend, MakeBackend

PASSWORD = ("operator", "pässword")
NAMES = {"file": "x.png"}  # of path parameters; the rest is "0000..."
NOWHERE = "0" * 32
NEEDED = {Role.PREDICT: 0, Role.TRAIN: 1, Role.ADMIN: 2}


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A route of /api/v1 and who may call it."""

    method: str
    path: str  # with {names}
    role: Role

    @property
    def address(self) -> str:
        """Return an address of nothing that there is."""
        path = self.path
        for name in [part.split("}")[0] for part in path.split("{")[1:]]:
            path = path.replace(f"{{{name}}}", NAMES.get(name, NOWHERE))
        return path


def operations_of(app: FastAPI) -> list[Operation]:
    """Return what the OpenAPI description says there is."""
    return [
        Operation(method=method.upper(), path=path, role=Role(described[ROLE_KEY]))
        for path, methods in app.openapi()["paths"].items()
        for method, described in methods.items()
        if path.startswith("/api/")
    ]


def walked(routes: Iterable[Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield method and path of every route, whether OpenAPI describes it or not."""
    for route in routes:
        included = getattr(route, "original_router", None)  # newer versions of FastAPI
        if included is not None:
            yield from walked(included.routes, prefix + route.include_context.prefix)
        else:
            yield from ((method, prefix + route.path) for method in route.methods)


def bearer(text: str) -> dict[str, str]:
    """Return the header of a token."""
    return {"Authorization": f"Bearer {text}"}


def basic(user: str, password: str) -> dict[str, str]:
    """Return the header of Basic auth."""
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {encoded}"}


def stranger(backend: Backend, **headers: str) -> TestClient:
    """Return a caller on another machine."""
    return TestClient(
        backend.app,
        base_url="http://cells.example.org",
        client=("192.168.1.7", 50000),
        headers=headers,
        raise_server_exceptions=False,
    )


def here(backend: Backend, **headers: str) -> TestClient:
    """Return a caller on this machine."""
    return TestClient(
        backend.app,
        base_url="http://127.0.0.1:9090",
        client=("127.0.0.1", 50000),
        headers=headers,
        raise_server_exceptions=False,
    )


def problem(answer: Any, status: int) -> str:
    """Return the sentence of a problem."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    sentence: str = answer.json()["detail"]
    return sentence


# Every route


def test_every_route_is_described_and_says_which_role_it_needs(backend: Backend) -> None:
    described = {(one.method, one.path) for one in operations_of(backend.app)}
    there = {one for one in walked(backend.app.routes) if one[1].startswith("/api/")}

    assert described == there
    assert ("GET", "/api/v1/sessions/{session_id}") in there


def test_every_route_is_described_with_what_callers_show(backend: Backend) -> None:
    description = backend.app.openapi()

    for path, methods in description["paths"].items():
        for operation in methods.values():
            wanted = [{"token": []}, {"password": []}] if path.startswith("/api/") else None
            assert operation.get("security") == wanted
    schemes = description["components"]["securitySchemes"]
    assert {scheme["scheme"] for scheme in schemes.values()} == {"bearer", "basic"}


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("has_password", [False, True])
def test_a_token_opens_what_its_role_may_do_and_nothing_else(
    make_backend: MakeBackend, role: Role, has_password: bool
) -> None:
    backend = make_backend(basic_auth=PASSWORD if has_password else None)
    _, text = backend.own.tokens.create("anna", role)
    caller = stranger(backend, **bearer(text))
    refused = 0

    for one in operations_of(backend.app):
        answer = caller.request(one.method, one.address)

        if NEEDED[role] < NEEDED[one.role]:
            refused += 1
            sentence = problem(answer, 403)
            assert f"has the role {role}; this needs {one.role}" in sentence
            assert "anna" in sentence
        else:
            assert answer.status_code not in (401, 403), (one, answer.text)
    assert (refused == 0) == (role is Role.ADMIN)


@pytest.mark.parametrize("shown", ["nothing", "revoked", "wrong", "empty", "other"])
@pytest.mark.parametrize("has_password", [False, True])
def test_without_a_token_that_counts_every_route_is_closed(
    make_backend: MakeBackend, shown: str, has_password: bool
) -> None:
    backend = make_backend(basic_auth=PASSWORD if has_password else None)
    tokens = backend.own.tokens
    _, revoked = tokens.create("anna", Role.ADMIN)
    tokens.revoke("anna")
    made, _ = tokens.create("bert", Role.ADMIN)
    headers = {
        "nothing": {},
        "revoked": bearer(revoked),
        "wrong": bearer(f"mlb_{made.id}_{'0' * 64}"),
        "empty": bearer(""),
        "other": {"Authorization": "Token 3"},
    }[shown]

    for caller in (stranger(backend, **headers), here(backend, **headers)):
        for one in operations_of(backend.app):
            answer = caller.request(one.method, one.address)

            assert "ml-backend tokens create" in problem(answer, 401)
            assert answer.json()["code"] == "request.unauthorized"
            challenges = answer.headers["www-authenticate"]
            assert 'Bearer realm="ml-backend"' in challenges
            assert ("Basic" in challenges) == (has_password and "Bearer" not in str(headers))


# Which credentials


def test_whoever_knows_the_password_is_an_admin(make_backend: MakeBackend) -> None:
    backend = make_backend(basic_auth=PASSWORD)
    caller = stranger(backend, **basic(*PASSWORD))

    assert caller.get("/api/v1/whoami").json() == {"name": "operator", "role": "admin"}
    for one in operations_of(backend.app):
        assert caller.request(one.method, one.address).status_code not in (401, 403), one
    for wrong in (basic("operator", "x"), basic("x", "pässword"), {"Authorization": "Basic !"}):
        sentence = problem(stranger(backend, **wrong).get("/api/v1/whoami"), 401)
        assert "user name or password is wrong" in sentence


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_a_token_works_where_a_password_is_set(make_backend: MakeBackend, scheme: str) -> None:
    backend = make_backend(basic_auth=PASSWORD)
    _, text = backend.own.tokens.create("anna", Role.PREDICT)
    headers = {"Authorization": f"{scheme} {text}"}

    assert stranger(backend, **headers).get("/api/v1/whoami").json() == {
        "name": "anna",
        "role": "predict",
    }
    # but of the rest of the server it opens nothing
    for path in ("/health", "/metrics", "/openapi.json", "/versions"):
        assert stranger(backend, **headers).get(path).status_code == 401


def test_a_program_here_is_an_admin_until_there_is_a_token(backend: Backend) -> None:
    caller, elsewhere = here(backend), stranger(backend)
    before = caller.get("/api/v1/whoami")
    far = elsewhere.get("/api/v1/whoami")

    backend.own.tokens.create("anna", Role.PREDICT)
    between = caller.get("/api/v1/whoami")
    backend.own.tokens.revoke("anna")
    after = caller.get("/api/v1/whoami")

    assert before.json() == after.json() == {"name": None, "role": "admin"}
    assert "this machine only" in problem(far, 403)
    assert "tokens create" in problem(between, 401)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8080"},  # Label Studio's pages, say
        {"Origin": "http://localhost:9090"},  # the same server, but by another name
        {"Origin": "http://[::1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_a_page_of_another_site_uses_neither_this_machine_nor_a_password(
    make_backend: MakeBackend, headers: dict[str, str]
) -> None:
    trusting, guarded = make_backend(), make_backend(basic_auth=PASSWORD)
    _, text = guarded.own.tokens.create("anna", Role.PREDICT)

    assert "other sites" in problem(here(guarded, **basic(*PASSWORD), **headers).get(
        "/api/v1/whoami"
    ), 403)  # fmt: skip
    # no page has a token unless somebody gave it one
    assert here(guarded, **bearer(text), **headers).get("/api/v1/whoami").status_code == 200
    guarded.own.tokens.revoke("anna")
    assert "other sites" in problem(here(trusting, **headers).get("/api/v1/whoami"), 403)


def test_a_page_of_this_server_may_use_the_password(make_backend: MakeBackend) -> None:
    backend = make_backend(basic_auth=PASSWORD)
    headers = {"Origin": "http://127.0.0.1:9090", "Sec-Fetch-Site": "same-origin"}

    answer = here(backend, **basic(*PASSWORD), **headers).get("/api/v1/whoami")

    assert answer.status_code == 200


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(header=st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=200))
def test_no_odd_header_opens_the_api(backend: Backend, header: str) -> None:
    if not backend.own.tokens.has_any():
        backend.own.tokens.create("anna", Role.ADMIN)
    caller = stranger(backend)

    for value in (header, f"Bearer {header}", f"Basic {header}"):
        answer = caller.get("/api/v1/whoami", headers={"Authorization": value.encode("latin-1")})
        assert answer.status_code == 401


def test_records_that_fail_let_nobody_in(backend: Backend) -> None:
    with backend.own.tokens._database.write() as session:
        session.execute(sa.text("DROP TABLE tokens"))

    for caller in (here(backend), stranger(backend, **bearer(f"mlb_{'0' * 16}_{'0' * 64}"))):
        answer = caller.get("/api/v1/whoami")
        assert answer.json()["code"] == "store.failed"
        assert answer.status_code == 503


# In this process


def test_whoever_makes_the_application_in_process_is_the_caller(
    make_backend: MakeBackend,
) -> None:
    own = make_backend(basic_auth=PASSWORD).own
    own.tokens.create("anna", Role.ADMIN)
    app = create_app(own, in_process=Caller(name=None, role=Role.TRAIN))
    caller = TestClient(app, base_url="http://in-process", client=None)

    assert caller.get("/api/v1/whoami").json() == {"name": None, "role": "train"}
    assert caller.get("/health").status_code == 200
    assert caller.post("/api/v1/versions/rollback", json={}).status_code in (403, 404, 405)


def test_nothing_that_comes_over_http_makes_a_caller_in_process(backend: Backend) -> None:
    backend.own.tokens.create("anna", Role.ADMIN)

    async def with_everything(scope: Scope, receive: Receive, send: Send) -> None:
        caller = Caller(name=None, role=Role.ADMIN)
        state = {**scope.get("state", {}), "caller": caller, "in_process": caller}
        await backend.app({**scope, "state": state, "in_process": caller}, receive, send)

    caller = TestClient(with_everything, base_url="http://127.0.0.1:9090")

    assert caller.get("/api/v1/whoami", headers={"X-In-Process": "1"}).status_code == 401
