"""The adapter passes on what Label Studio asks, and stays calm when nobody answers."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from ml_backend.toolkit.forwarding import Forwarding
from tests.image_server import ImageServer, Reply

TASKS = {"tasks": [{"id": 1, "data": {}}, {"id": 2, "data": {}}], "project": "1.2"}


@pytest.fixture
def server() -> Iterator[ImageServer]:
    """A backend of ours, as far as its answers go."""
    with ImageServer() as running:
        yield running


def answers(content: Any, status: int = 200, **headers: str) -> Reply:
    return Reply(status=status, body=json.dumps(content).encode(), headers=headers)


def test_a_setup_is_passed_on_whole(server: ImageServer) -> None:
    server.routes["/setup"] = answers({"model_version": "v1"})
    body = {"project": "1.2", "schema": "<View/>", "extra_params": {"a": 1}}
    assert Forwarding(server.origin).set_up(body) == "v1"
    [asked] = server.asked
    assert json.loads(asked.body) == body
    assert asked.headers["content-type"] == "application/json"
    assert "authorization" not in asked.headers


@pytest.mark.parametrize("way", ["settings", "address"])
def test_user_and_password_are_sent(server: ImageServer, way: str) -> None:
    server.routes["/setup"] = answers({"model_version": "v1"})
    if way == "settings":
        forwarding = Forwarding(server.origin, user="ls", password="p@ss")
    else:
        forwarding = Forwarding(server.origin.replace("://", "://ls:p%40ss@"))
    forwarding.set_up({})
    expected = base64.b64encode(b"ls:p@ss").decode()
    assert server.asked[0].headers["authorization"] == f"Basic {expected}"
    assert server.asked[0].headers["host"] == server.origin.removeprefix("http://")


def test_a_refusal_is_told_in_the_backend_s_words_and_not_followed(server: ImageServer) -> None:
    server.routes["/setup"] = answers(
        {"code": "config.unusable", "message": "No control."}, 303, Location="refused/x"
    )
    with pytest.raises(RuntimeError, match=r"^No control\.$"):
        Forwarding(server.origin).set_up({})
    assert server.paths() == ["/setup"]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"a": 1}'])
def test_an_error_without_words_names_its_number(server: ImageServer, body: bytes) -> None:
    server.routes["/setup"] = Reply(status=500, body=body)
    with pytest.raises(RuntimeError, match="HTTP 500"):
        Forwarding(server.origin).set_up({})


def test_entries_are_passed_on(server: ImageServer) -> None:
    entries = [{"result": [], "score": 0.5, "model_version": "v1"}, {}]
    server.routes["/predict"] = answers({"results": entries})
    assert Forwarding(server.origin).predict(TASKS) == entries


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=500),
        Reply(body=b"no json"),
        answers({}),
        answers([]),
        answers({"results": [{}]}),
        answers({"results": None}),
    ],
)
def test_whatever_goes_wrong_is_an_empty_answer(server: ImageServer, reply: Reply) -> None:
    server.routes["/predict"] = reply
    assert Forwarding(server.origin).predict(TASKS) == [{}, {}]


def test_a_backend_that_is_away_is_named(unused_port: int) -> None:
    forwarding = Forwarding(f"http://127.0.0.1:{unused_port}/prefix/")
    assert forwarding.predict(TASKS) == [{}, {}]
    with pytest.raises(RuntimeError, match=r"127\.0\.0\.1:\d+/prefix does not answer"):
        forwarding.set_up({})
    told = forwarding.tell({"action": "X"}, {})
    assert told["status"] == "error"


@pytest.fixture
def unused_port() -> int:
    with ImageServer() as closed:
        return closed.port


def test_events_carry_the_secret_and_what_label_studio_sent(server: ImageServer) -> None:
    server.routes["/webhook"] = answers({"status": "recorded", "job": "j"}, 201)
    forwarding = Forwarding(server.origin, secret="hush")
    assert forwarding.tell({"action": "START_TRAINING"}, {}) == {"status": "recorded", "job": "j"}
    forwarding.tell({"action": "X"}, {"X-Backend-Secret": "theirs", "X-Label-Studio-Origin": "o"})
    sent = [
        (one.headers["x-backend-secret"], one.headers.get("x-label-studio-origin"))
        for one in server.asked
    ]
    assert sent == [("hush", None), ("theirs", "o")]


@pytest.mark.parametrize("url", ["", "localhost:9090", "ftp://x", "http://", "file:///etc/passwd"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="ML_BACKEND_URL"):
        Forwarding(url)


def test_a_proxy_of_the_environment_is_not_asked(
    server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server.routes["/setup"] = answers({"model_version": "v1"})
    assert Forwarding(server.origin).set_up({}) == "v1"
