"""Requests that cannot be understood get one sentence, never a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_backend.errors import BackendError
from ml_backend.store.database import Database
from ml_backend.web.app import STATUS_BY_CODE
from tests.http.conftest import Backend, Logged, MakeBackend

POSTS = ["/setup", "/predict", "/webhook", "/job_status"]
BODIES: list[bytes] = [
    b"",
    b"garbage",
    b"\xff\xfe\x00",
    b"null",
    b"[]",
    b'"text"',
    b"{",
    b'{"a": NaN}',
    b'{"a": "\\ud800"}',
    b"[" * 200_000,
    b'{"a":' * 200_000,
    b"{}",
]


def all_codes(error: type[BackendError] = BackendError) -> set[str]:
    """Return the codes of an error and all that derive from it."""
    return {error.code}.union(*(all_codes(leaf) for leaf in error.__subclasses__()))


def test_every_error_code_has_a_status() -> None:
    assert set(STATUS_BY_CODE) == all_codes()


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:12]))
def test_a_body_that_is_no_fitting_json_is_400_with_a_sentence(
    backend: Backend, path: str, body: bytes
) -> None:
    answer = backend.client.post(path, content=body, headers={"x-request-id": "mine"})

    assert answer.status_code == 400
    assert set(answer.json()) == {"code", "message", "request_id"}
    assert answer.json()["request_id"] == answer.headers["x-request-id"] == "mine"
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "tasks",
    [
        *(None, [], {}, "x", [None], [1], [{}], [{"id": None}], [{"id": "1"}], [{"id": True}]),
        *([{"id": 1.5}], [{"id": -1}], [{"id": 2**63}], [{"id": 2**70}]),
        [{"id": 1}, {"data": {}}],
    ],
    ids=repr,
)
def test_tasks_without_ids_are_400(backend: Backend, tasks: Any) -> None:
    answer = backend.client.post("/predict", json={"tasks": tasks, "project": "1.2"})

    assert answer.status_code == 400
    assert backend.engine.calls == []


@pytest.mark.parametrize("place", ["data", "annotations", "label_config"])
@pytest.mark.parametrize("half", [r"\ud83d", r"\uDE00\n", r"\ud83d\ud83d\ude00"])
def test_half_an_emoji_somewhere_does_not_cost_the_batch(
    backend: Backend, place: str, half: str
) -> None:
    backend.setup()
    texts = {"data": "a", "annotations": "a", "label_config": "a", place: half}
    body = (
        '{"tasks": [{"id": 1, "data": {"image": "/a.png", "text": "%(data)s"},'
        ' "annotations": ["%(annotations)s"]}],'
        ' "project": "1.2", "label_config": "%(label_config)s"}'
    )

    answer = backend.client.post("/predict", content=(body % texts).encode())

    assert answer.status_code == 200
    assert answer.json()["results"][0]["score"] == 0.5
    assert backend.engine.calls[0].tasks[0].data["image"] == "/a.png"


def test_whole_emoji_and_backslashes_beside_half_a_one_stay_what_they_are(backend: Backend) -> None:
    backend.setup()
    data = r'{"emoji": "\ud83d\ude00", "path": "C:\\ud83d", "half": "\ud83d."}'

    body = f'{{"tasks": [{{"id": 1, "data": {data}}}], "project": "1.2"}}'
    backend.client.post("/predict", content=body.encode())

    assert backend.engine.calls[0].tasks[0].data == {
        "emoji": "\N{GRINNING FACE}",
        "path": r"C:\ud83d",
        "half": "\N{REPLACEMENT CHARACTER}.",
    }


@pytest.mark.parametrize("data", [None, [], "x", 3])
def test_a_task_without_usable_data_is_the_engines_to_refuse(backend: Backend, data: Any) -> None:
    backend.setup()

    answer = backend.client.post("/predict", json={"tasks": [{"id": 1, "data": data}]})

    assert answer.status_code in (200, 400)


def test_an_unknown_project_without_label_config_is_400(backend: Backend) -> None:
    answer = backend.predict(1, project="9.9", label_config=None)

    assert answer.status_code == 400
    assert "label_config" in answer.json()["message"]


@pytest.mark.parametrize("project", [None, 1, "", "x", "1", "1.x", "9" * 30 + ".1", "1.2.3"])
def test_setup_without_a_project_name_is_400(backend: Backend, project: Any) -> None:
    answer = backend.client.post("/setup", json={"project": project, "schema": "<View/>"})

    assert answer.status_code in (200, 303) if project == "1" else answer.status_code == 400


@pytest.mark.parametrize("path", POSTS)
def test_a_declared_size_over_the_limit_is_413(make_backend: MakeBackend, path: str) -> None:
    backend = make_backend(max_request_bytes=1000)

    answer = backend.client.post(path, content=b"x" * 1001)

    assert answer.status_code == 413
    assert answer.json()["code"] == "request.too_large"
    assert "MAX_REQUEST_MB" in answer.json()["message"]


@pytest.mark.parametrize("path", POSTS)
def test_a_stream_without_end_is_cut_off(make_backend: MakeBackend, path: str) -> None:
    backend = make_backend(max_request_bytes=1000)
    sent = []

    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            sent.append(1)
            yield b"x" * 100

    answer = backend.client.post(path, content=chunks())

    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/delete"),
        ("POST", "/duplicate_model"),
        ("POST", "/train"),
        ("POST", "/validate"),
        ("GET", "/docs"),
        ("GET", "/is_training"),
    ],
)
def test_routes_that_label_studio_never_calls_are_not_there(
    backend: Backend, method: str, path: str
) -> None:
    answer = backend.client.request(method, path)

    assert answer.status_code == 404
    assert answer.json()["code"] == "http.404"


def test_a_wrong_method_is_405_with_the_right_ones(backend: Backend) -> None:
    answer = backend.client.get("/predict")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


def test_a_bug_of_ours_shows_an_id_and_nothing_else(
    make_backend: MakeBackend, logged: Logged
) -> None:
    def broken(_: str) -> Any:
        raise ZeroDivisionError("secret detail")

    backend = make_backend(parse_label_config=broken)

    answer = backend.setup()

    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert [line["event"] for line in logged if line.get("exc_info")] == [
        "request failed unexpectedly"
    ]
    assert {line["request_id"] for line in logged} == {answer.headers["x-request-id"]}


def test_every_line_logged_for_a_request_has_its_id(backend: Backend, logged: Logged) -> None:
    refused = backend.client.post("/predict", content=b"garbage")
    backend.predict(1, project="5.6", label_config="<View/>")

    assert len(logged) == 3  # the project is recorded, and answered without predictions
    assert logged[0]["request_id"] == refused.headers["x-request-id"]
    assert logged[1]["request_id"] == logged[2]["request_id"] != logged[0]["request_id"]


def test_records_that_are_gone_are_a_503_with_a_sentence(
    make_backend: MakeBackend, tmp_path: Path
) -> None:
    backend = make_backend()
    with Database(f"sqlite:///{tmp_path / 'records.sqlite3'}").engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE active_releases")

    answer = backend.client.get("/health")

    assert answer.status_code == 503
    assert answer.json()["code"] == "store.failed"
