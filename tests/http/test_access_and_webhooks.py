"""Who may call, and what becomes of events."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_backend.labelstudio.rows import BasicAuth
from ml_backend.labelstudio.webhooks import webhook_headers
from ml_backend.store.events import EventState
from ml_backend.web.auth import is_basic_right, is_webhook_welcome
from tests.http.conftest import Backend, MakeBackend

ROUTES = [
    ("GET", "/"),
    ("GET", "/health"),
    ("POST", "/setup"),
    ("POST", "/predict"),
    ("GET", "/versions"),
    ("POST", "/job_status"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/refused/x"),
    ("GET", "/nowhere"),
]
ANNOTATION = {"action": "ANNOTATION_CREATED", "project": {"id": 1}}
TRAINING = {"action": "START_TRAINING", "project": {"id": 1}}


def basic(user: str, password: str) -> dict[str, str]:
    """Return the header of Basic auth."""
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {encoded}"}


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_wants_the_password_when_there_is_one(
    make_backend: MakeBackend, method: str, path: str
) -> None:
    backend = make_backend(basic_auth=("user", "pässword"))

    without = backend.client.request(method, path)
    wrong = backend.client.request(method, path, headers=basic("user", "x"))
    right = backend.client.request(method, path, headers=basic("user", "pässword"))

    assert (without.status_code, wrong.status_code) == (401, 401)
    assert without.headers["www-authenticate"].startswith("Basic")
    assert without.json()["code"] == "request.unauthorized"
    assert right.status_code != 401


@settings(max_examples=50)
@given(header=st.none() | st.text(max_size=40) | st.text(max_size=30).map(lambda t: f"Basic {t}"))
def test_no_odd_header_opens_the_door(header: str | None) -> None:
    assert not is_basic_right(header, ("user", "password"))


@pytest.mark.parametrize(
    ("action", "given_secret", "authorized", "secret", "has_basic", "welcome"),
    [
        ("ANNOTATION_CREATED", None, False, None, False, True),
        ("ANNOTATION_CREATED", None, False, None, True, False),
        ("ANNOTATION_CREATED", None, True, None, True, True),
        ("ANNOTATION_CREATED", "made up", False, None, True, False),
        ("START_TRAINING", None, False, None, True, False),
        ("START_TRAINING", None, True, None, True, True),
        ("START_TRAINING", None, False, None, False, True),
        ("ANNOTATION_CREATED", "right", False, "right", False, True),
        ("ANNOTATION_CREATED", "wrong", False, "right", False, False),
        ("ANNOTATION_CREATED", None, False, "right", False, False),
        ("ANNOTATION_CREATED", None, True, "right", True, True),
        ("ANNOTATION_CREATED", "ünicode", False, "right", True, False),
        ("START_TRAINING", None, False, "right", False, True),
        ("START_TRAINING", None, False, "right", True, False),
        ("START_TRAINING", None, True, "right", True, True),
    ],
)
def test_who_may_send_events(
    action: str,
    given_secret: str | None,
    authorized: bool,
    secret: str | None,
    has_basic: bool,
    welcome: bool,
) -> None:
    decision = is_webhook_welcome(
        action=action,
        given_secret=given_secret,
        authorization=basic("user", "password")["Authorization"] if authorized else None,
        secret=secret,
        basic_auth=("user", "password") if has_basic else None,
    )

    assert decision is welcome


def test_the_secret_is_asked_for_over_http(make_backend: MakeBackend) -> None:
    backend = make_backend(webhook_secret="right")

    without = backend.client.post("/webhook", json=ANNOTATION)
    with_it = backend.client.post(
        "/webhook", json=ANNOTATION, headers={"X-Backend-Secret": "right"}
    )
    trigger = backend.client.post("/webhook", json=TRAINING)

    assert (without.status_code, with_it.status_code, trigger.status_code) == (401, 201, 201)
    assert "connect" in without.json()["message"]
    assert len(backend.own.events.queued(limit=9)) == 2


def test_basic_auth_without_a_secret_protects_events_too(make_backend: MakeBackend) -> None:
    backend = make_backend(basic_auth=("user", "password"))
    proof = webhook_headers(
        origin="http://one.example",
        secret=None,
        auth=BasicAuth(user="user", password="password"),
    )

    by_a_stranger = backend.client.post(
        "/webhook", json=ANNOTATION, headers={"X-Label-Studio-Origin": "http://one.example"}
    )
    by_the_webhook = backend.client.post("/webhook", json=ANNOTATION, headers=proof)

    assert (by_a_stranger.status_code, by_the_webhook.status_code) == (401, 201)
    assert len(backend.own.events.queued(limit=9)) == 1


def test_a_job_can_be_asked_about(backend: Backend) -> None:
    job = backend.client.post("/webhook", json=TRAINING).json()["job"]
    queued = backend.client.post("/job_status", json={"job": job}).json()
    backend.own.events.finish(job, EventState.FAILED, message="too few annotations")

    failed = backend.client.post("/job_status", json={"job": job}).json()

    assert (queued["job"], queued["action"], queued["state"]) == (job, "START_TRAINING", "queued")
    assert (failed["state"], failed["message"]) == ("failed", "too few annotations")


def test_an_unknown_job_is_404_with_a_sentence(backend: Backend) -> None:
    answer = backend.client.post("/job_status", json={"job": "x\0"})

    assert (answer.status_code, answer.json()["code"]) == (404, "job.unknown")


@pytest.mark.parametrize(
    "event",
    [
        {"action": "SOMETHING_NEW"},
        {"action": "X", "project": None},
        {"action": "X", "project": {"id": "1"}},
        {"action": "X", "project": {"id": 2**70}},
        {"action": "y" * 5000, "project": {"id": True}},
        {"action": "nul\0"},
    ],
    ids=lambda event: repr(event)[:40],
)
def test_unknown_events_are_recorded_too(backend: Backend, event: dict[str, Any]) -> None:
    answer = backend.client.post("/webhook", json=event)

    assert answer.status_code == 201


@pytest.mark.parametrize("action", [None, "", " ", "\0", 3, []])
def test_an_event_without_a_name_is_400(backend: Backend, action: Any) -> None:
    assert backend.client.post("/webhook", json={"action": action}).status_code == 400


def test_an_event_keeps_the_origin_that_connect_put_into_its_header(backend: Backend) -> None:
    by_header = backend.client.post(
        "/webhook", json=ANNOTATION, headers={"X-Label-Studio-Origin": "http://one.example/"}
    )
    by_address = backend.client.post("/webhook?origin=http://two.example", json=ANNOTATION)

    origins = [event.origin for event in backend.own.events.queued(limit=9)]
    assert (by_header.status_code, by_address.status_code) == (201, 201)
    assert origins == ["http://one.example", "http://two.example"]


def test_metrics_count_requests_and_tasks(backend: Backend) -> None:
    backend.setup()
    backend.predict(3)
    backend.client.get("/nowhere")

    text = backend.client.get("/metrics").text

    assert 'route="/predict",status="200"' in text
    assert 'route="other",status="404"' in text
    assert any('outcome="filled"' in line and line.endswith(" 3.0") for line in text.split("\n"))


def test_stopping_closes_the_way_to_the_engine(backend: Backend) -> None:
    with backend.client:
        pass

    assert backend.engine.closed
