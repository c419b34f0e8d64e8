"""/api/v1: sessions for people and programs on this machine, and who may call."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.types import Receive, Scope, Send

from ml_backend.domain import ProjectKey
from ml_backend.learning import (
    EpochPoint,
    Lease,
    Session,
    SessionState,
    TrainingParameters,
    Trigger,
)
from ml_backend.store.database import Database
from ml_backend.store.sessions import Sessions
from tests.http.conftest import COMPONENT, Backend, MakeBackend

HERE = ("127.0.0.1", 50000)
PROJECT = ProjectKey(origin="http://ls.example", project_id=1, created_at=2)
NOWHERE = "0" * 32
Caller = Callable[..., TestClient]


@pytest.fixture
def backend(make_backend: MakeBackend) -> Backend:
    """Return an application that a project is connected to."""
    backend = make_backend()
    assert backend.setup("1.2").status_code == 200
    return backend


@pytest.fixture
def api(backend: Backend) -> TestClient:
    """Return a caller on this machine."""
    return local(backend)


@pytest.fixture
def sessions(backend: Backend) -> Sessions:
    """Return the rows that a trainer writes."""
    return rows_of(backend)


def rows_of(backend: Backend) -> Sessions:
    """Return the session rows of an application's records."""
    database: Database = backend.own.projects._database
    return Sessions(database)


def local(backend: Backend, **headers: str) -> TestClient:
    """Return a caller on this machine with these headers."""
    return TestClient(
        backend.app,
        base_url="http://127.0.0.1:9090",
        client=HERE,
        headers=headers,
        raise_server_exceptions=False,
    )


def requested(
    sessions: Sessions, *controls: str, project: ProjectKey = PROJECT, **more: Any
) -> Session:
    """Return a session that was asked for."""
    return sessions.request(
        project,
        controls=controls or ("cells",),
        trigger=Trigger.POLICY,
        parameters=TrainingParameters(n_epochs=9),
        **more,
    )


def claimed(sessions: Sessions, session: Session) -> Lease:
    """Return the lease of a trainer that has begun."""
    lease = sessions.claim(session.id, owner="trainer", lease_s=60)
    assert lease is not None
    return lease


def problem(answer: Any, status: int, code: str) -> str:
    """Return the sentence of a problem, which must be one."""
    body = answer.json()
    assert answer.status_code == status, body
    assert answer.headers["content-type"] == "application/problem+json"
    assert (body["status"], body["code"]) == (status, code)
    assert body["request_id"] == answer.headers["x-request-id"]
    sentence: str = body["detail"]
    return sentence


# Starting, following, stopping


def test_a_session_is_started_for_each_network_of_a_project(
    api: TestClient, sessions: Sessions
) -> None:
    answer = api.post("/api/v1/sessions", json={"project": 1})

    (item,) = answer.json()["items"]
    assert answer.status_code == 202
    assert (item["state"], item["trigger"], item["controls"]) == ("queued", "person", ["cells"])
    assert item["project"]["key"] == "http://ls.example#1.2"
    assert sessions.get(item["id"]) is not None


def test_starting_twice_waits_once(api: TestClient) -> None:
    first = api.post("/api/v1/sessions", json={"project": "1"}).json()["items"]
    second = api.post("/api/v1/sessions", json={"project": "1.2"}).json()["items"]

    assert first == second
    assert len(api.get("/api/v1/sessions").json()["items"]) == 1


def test_two_networks_are_two_sessions(make_backend: MakeBackend) -> None:
    backend = make_backend()
    backend.own.components.record("other", replace(COMPONENT, sha256="1" * 64), device="cpu")
    tags = "".join(
        f'<PolygonLabels name="{name}" toName="image" {option}><Label value="{name}"/>'
        "</PolygonLabels>"
        for name, option in (("a", ""), ("b", ""), ("c", 'model_name="other"'))
    )
    config = f'<View model_epochs="7"><Image name="image" value="$image"/>{tags}</View>'
    assert backend.setup("1.2", config).status_code == 200

    items = local(backend).post("/api/v1/sessions", json={"project": 1}).json()["items"]

    assert [item["controls"] for item in items] == [["a", "b"], ["c"]]
    assert {item["parameters"]["n_epochs"] for item in items} == {7}


def test_a_project_of_points_has_nothing_to_train(make_backend: MakeBackend) -> None:
    backend = make_backend()
    backend.setup(
        "1.2",
        '<View><Image name="image" value="$image"/><KeyPointLabels name="k" toName="image">'
        '<Label value="Cell"/></KeyPointLabels></View>',
    )

    answer = local(backend).post("/api/v1/sessions", json={"project": 1})

    assert "nothing to train" in problem(answer, 422, "config.unusable")


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"project": null}', b"\xff", b'{"project'])
def test_a_start_that_names_no_project_is_400(api: TestClient, body: bytes) -> None:
    answer = api.post("/api/v1/sessions", content=body)

    assert '{"project": 3}' in problem(answer, 400, "request.invalid")


def test_an_unknown_project_is_404_and_says_which_there_are(api: TestClient) -> None:
    for answer in (
        api.post("/api/v1/sessions", json={"project": 8}),
        api.get("/api/v1/sessions?project=8"),
        api.post("/api/v1/models/rollback", json={"project": "8"}),
        api.get("/api/v1/models?project=nonsense"),
    ):
        assert "set up: 1." in problem(answer, 404, "request.not_found")


def test_a_project_that_two_label_studios_have_must_be_told_apart(backend: Backend) -> None:
    body = {"project": "1.3", "schema": "<View/>", "hostname": "http://other.example"}
    backend.client.post("/setup", json=body)
    api = local(backend)

    sentence = problem(api.post("/api/v1/sessions", json={"project": 1}), 400, "request.invalid")
    chosen = api.post("/api/v1/sessions", json={"project": "http://ls.example#1.2"})

    assert "'http://ls.example#1.2'" in sentence
    assert "'http://other.example#1.3'" in sentence
    assert chosen.status_code == 202
    assert api.post("/api/v1/sessions", json={"project": "1.2"}).status_code == 202


def test_a_session_tells_how_far_it_is(api: TestClient, sessions: Sessions) -> None:
    session = requested(sessions)
    lease = claimed(sessions, session)
    sessions.note(
        lease,
        progress={"epoch": 3, "epochs": 9, "eta_s": 12.5, "phase": "training"},
        report={"left out": ["task 4: its image cannot be fetched"]},
        manifest={"tasks": [1, 2]},
    )

    running = api.get(f"/api/v1/sessions/{session.id}").json()
    by_prefix = api.get(f"/api/v1/sessions/{session.id[:8]}").json()
    manifest = api.get(f"/api/v1/sessions/{session.id}/manifest").json()
    sessions.finish(lease, SessionState.COMPLETED, message="Promoted: better.", version="x-v1")
    ended = api.get(f"/api/v1/sessions/{session.id}").json()

    assert (running["state"], running["currently_training"]) == ("running", True)
    assert running["finished_training_at"] is None
    assert running["progress"]["epoch"] == 3
    assert running["report"] == {"left out": ["task 4: its image cannot be fetched"]}
    assert manifest == {"tasks": [1, 2]}
    assert "manifest" not in running
    assert by_prefix == running
    assert (ended["state"], ended["message"]) == ("completed", "Promoted: better.")
    assert (ended["version"], ended["currently_training"]) == ("x-v1", False)
    assert running["started_training_at"] <= ended["finished_training_at"]
    assert ended["finished_training_at"].endswith("+00:00")


def test_a_stop_is_asked_for_once_it_runs_and_immediate_before(
    api: TestClient, sessions: Sessions
) -> None:
    waiting, running = requested(sessions), requested(sessions, "others")
    claimed(sessions, running)

    stopped = api.post(f"/api/v1/sessions/{waiting.id}/stop")
    stopping = api.post(f"/api/v1/sessions/{running.id}/stop")

    assert (stopped.status_code, stopped.json()["state"]) == (202, "stopped")
    assert (stopping.json()["state"], stopping.json()["stop_requested"]) == ("running", True)


def test_what_was_stopped_can_be_resumed_and_nothing_else(
    api: TestClient, sessions: Sessions
) -> None:
    session = requested(sessions)
    queued = api.post(f"/api/v1/sessions/{session.id}/resume")
    api.post(f"/api/v1/sessions/{session.id}/stop")

    resumed = api.post(f"/api/v1/sessions/{session.id}/resume")
    sessions.finish(claimed(sessions, session), SessionState.COMPLETED, message="done")
    completed = api.post(f"/api/v1/sessions/{session.id}/resume")

    assert "is queued" in problem(queued, 409, "request.conflict")
    assert (resumed.status_code, resumed.json()["state"]) == (202, "queued")
    assert "is completed" in problem(completed, 409, "request.conflict")
    stop = api.post(f"/api/v1/sessions/{session.id}/stop")
    assert "has ended" in problem(stop, 409, "request.conflict")


def test_a_session_does_not_jump_the_queue_of_its_controls(
    api: TestClient, sessions: Sessions
) -> None:
    old = requested(sessions)
    sessions.request_stop(old.id)
    new = requested(sessions)

    answer = api.post(f"/api/v1/sessions/{old.id}/resume")

    assert new.id in problem(answer, 409, "request.conflict")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", path) for path in ("", "/curves", "/curves.png", "/manifest")),
        *(("GET", path) for path in ("/debug", "/events")),
        *(("POST", path) for path in ("/stop", "/resume", "/restart")),
        ("DELETE", ""),
    ],
)
def test_an_unknown_session_is_404(api: TestClient, method: str, path: str) -> None:
    for name in (NOWHERE, "x", "%00", "ab"):
        answer = api.request(method, f"/api/v1/sessions/{name}{path}")

        assert "sessions list" in problem(answer, 404, "request.not_found")


# Lists


def test_sessions_are_listed_newest_first_and_filtered(
    make_backend: MakeBackend, backend: Backend
) -> None:
    backend.setup("5.6")
    sessions, api = rows_of(backend), local(backend)
    other = ProjectKey(origin="http://ls.example", project_id=5, created_at=6)
    one, two = requested(sessions, "a"), requested(sessions, "b", project=other)
    three = requested(sessions, "c")
    claimed(sessions, two)

    def ids(query: str = "") -> list[str]:
        return [item["id"] for item in api.get(f"/api/v1/sessions{query}").json()["items"]]

    assert ids() == [three.id, two.id, one.id]
    assert ids("?project=5") == [two.id]
    assert ids("?state=queued") == [three.id, one.id]
    assert ids("?state=queued&project=5") == []
    assert ids("?limit=1") == [three.id]


def test_pages_follow_each_other_until_there_is_no_next(
    api: TestClient, sessions: Sessions
) -> None:
    wanted = [requested(sessions, f"control {number}").id for number in range(5)][::-1]

    found, after, pages = [], "", 0
    while True:
        page = api.get(f"/api/v1/sessions?limit=2{after}").json()
        found += [item["id"] for item in page["items"]]
        pages += 1
        if page["next"] is None:
            break
        after = f"&after={page['next']}"

    assert (found, pages) == (wanted, 3)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "state=dead", f"project={'x' * 600}"]
)
def test_a_filter_that_makes_no_sense_is_400_and_named(api: TestClient, query: str) -> None:
    answer = api.get(f"/api/v1/sessions?{query}")

    assert query.partition("=")[0] in problem(answer, 400, "request.invalid")


# Curves


def test_curves_are_empty_before_the_first_epoch(api: TestClient, sessions: Sessions) -> None:
    session = requested(sessions)

    picture = api.get(f"/api/v1/sessions/{session.id}/curves.png")

    assert api.get(f"/api/v1/sessions/{session.id}/curves").json() == {}
    assert picture.headers["content-type"] == "image/png"
    assert picture.content.startswith(b"\x89PNG")


def test_curves_are_keyed_by_epoch(api: TestClient, sessions: Sessions) -> None:
    session = requested(sessions)
    lease = claimed(sessions, session)
    sessions.point(lease, EpochPoint(epoch=1, step=4, loss=0.5, learning_rate=1e-4))
    sessions.point(
        lease,
        EpochPoint(
            epoch=2, step=8, loss=math.nan, learning_rate=2e-4, validation_loss=0.25,
            precision=(0.5, 0.25, 0.125),
        ),
    )  # fmt: skip

    curves = api.get(f"/api/v1/sessions/{session.id}/curves").json()

    assert list(curves) == ["1", "2"]
    assert (curves["1"]["loss"], curves["1"]["lr"], curves["1"]["val_loss"]) == (0.5, 1e-4, None)
    assert (curves["2"]["loss"], curves["2"]["val_loss"], curves["2"]["ap90"]) == (
        *(None, 0.25, 0.125),
    )


# Who may call

ROUTES = [
    ("GET", "/api/v1/whoami"),
    ("GET", "/api/v1/load"),
    ("POST", "/api/v1/infer"),
    ("GET", "/api/v1/sessions"),
    ("POST", "/api/v1/sessions"),
    ("GET", f"/api/v1/sessions/{NOWHERE}"),
    ("GET", f"/api/v1/sessions/{NOWHERE}/manifest"),
    ("GET", f"/api/v1/sessions/{NOWHERE}/curves"),
    ("GET", f"/api/v1/sessions/{NOWHERE}/curves.png"),
    ("POST", f"/api/v1/sessions/{NOWHERE}/stop"),
    ("POST", f"/api/v1/sessions/{NOWHERE}/resume"),
    ("POST", f"/api/v1/sessions/{NOWHERE}/restart"),
    ("GET", f"/api/v1/sessions/{NOWHERE}/debug"),
    ("GET", f"/api/v1/sessions/{NOWHERE}/events"),
    ("DELETE", f"/api/v1/sessions/{NOWHERE}"),
    ("GET", "/api/v1/training-parameters"),
    ("GET", "/api/v1/datasets"),
    ("GET", "/api/v1/datasets/x/models"),
    ("GET", "/api/v1/models"),
    ("POST", "/api/v1/models"),
    ("POST", "/api/v1/models/rollback"),
    ("GET", "/api/v1/models/x"),
    ("DELETE", "/api/v1/models/x"),
    ("GET", "/api/v1/models/x/weights"),
    ("GET", "/api/v1/models/x/pictures"),
    ("GET", "/api/v1/models/x/pictures/cluster-1.png"),
    ("POST", "/api/v1/models/x/activate"),
    ("POST", "/api/v1/models/x/archive"),
    ("POST", "/api/v1/models/x/export"),
    ("GET", "/api/v1/projects"),
    ("GET", "/api/v1/projects/1/export"),
    ("GET", "/api/v1/activations"),
]


def test_every_route_of_the_api_is_tested(backend: Backend) -> None:
    paths = backend.app.openapi()["paths"]
    described = {
        (
            method.upper(),
            path.replace("{session_id}", NOWHERE)
            .replace("{name}", "x")
            .replace("{project}", "1")
            .replace("{file}", "cluster-1.png"),
        )
        for path, methods in paths.items()
        for method in methods
        if path.startswith("/api/v1/")
    }

    assert described == set(ROUTES)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_strangers_are_refused_everywhere(backend: Backend, method: str, path: str) -> None:
    stranger = TestClient(
        backend.app, base_url="http://127.0.0.1:9090", client=("192.168.1.7", 50000)
    )

    sentence = problem(stranger.request(method, path), 403, "request.forbidden")

    assert "this machine only" in sentence


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "192.168.1.7"},
        {"Forwarded": "for=192.168.1.7"},
        {"X-Real-IP": "192.168.1.7"},
        {"Via": "1.1 proxy"},
        {"Host": "cells.example.org"},
        {"Host": "[::1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
    ids=str,
)
def test_neither_proxies_nor_web_pages_open_the_api(
    backend: Backend, headers: dict[str, str]
) -> None:
    answer = local(backend).get("/api/v1/sessions", headers=headers)

    problem(answer, 403, "request.forbidden")


def test_a_proxy_that_speaks_as_nginx_does_is_noticed(backend: Backend) -> None:
    async def through_nginx(scope: Scope, receive: Receive, send: Send) -> None:
        await backend.app({**scope, "http_version": "1.0"}, receive, send)

    caller = TestClient(through_nginx, base_url="http://127.0.0.1:9090", client=HERE)

    problem(caller.get("/api/v1/sessions"), 403, "request.forbidden")


@pytest.mark.parametrize("host", ["localhost:9090", "127.0.0.1", "[::1]:9090"])
def test_this_machine_is_let_in_by_each_of_its_names(backend: Backend, host: str) -> None:
    headers = {"Host": host, "Origin": f"http://{host}"}

    assert local(backend).get("/api/v1/sessions", headers=headers).status_code == 200


def test_basic_auth_is_wanted_on_this_machine_too(make_backend: MakeBackend) -> None:
    backend = make_backend(basic_auth=("user", "password"))
    encoded = base64.b64encode(b"user:password").decode()

    without = local(backend).get("/api/v1/sessions")
    right = local(backend, Authorization=f"Basic {encoded}").get("/api/v1/sessions")

    problem(without, 401, "request.unauthorized")
    assert without.headers["www-authenticate"].startswith("Basic")
    assert right.status_code == 200


def test_an_address_that_does_not_exist_is_a_problem_too(api: TestClient) -> None:
    problem(api.get("/api/v1/nowhere"), 404, "http.404")
    problem(api.delete("/api/v1/sessions"), 405, "http.405")


def test_the_description_has_an_answer_for_every_route(backend: Backend) -> None:
    for path, methods in backend.app.openapi()["paths"].items():
        if path.startswith("/api/v1/"):
            for operation in methods.values():
                good = {code for code in operation["responses"] if code.startswith("2")}
                assert len(good - {"204"}) <= 1 <= len(good)
                for code in good - {"204"}:
                    assert operation["responses"][code]["content"]
                assert "application/problem+json" in operation["responses"]["404"]["content"]
