"""/api/v1/models/{name}/export: checked here, made by an engine, passed on as it comes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from ml_backend.errors import (
    BackendError,
    Busy,
    CheckpointInvalid,
    EngineError,
    EngineUnavailable,
    ModelNotFound,
)
from ml_backend.service.export_request import MODEL_HEADER, NOTES_HEADER
from tests.fakes import FakeEngineAnswer
from tests.http.conftest import Backend
from tests.http.test_api import local, problem

EXPORT = "/api/v1/models/nuclei-1/export"
BODY = {"authors": [{"name": "A. Author"}]}
HEADERS = {
    "content-type": "application/zip",
    "content-length": "6",
    "content-disposition": 'attachment; filename="nuclei-1.zip"',
    "x-notes": "The network found nothing.",
    "server": "engine",
}


@pytest.fixture
def answer(backend: Backend) -> FakeEngineAnswer:
    """Return what the engine answers."""
    answer = FakeEngineAnswer(body=[b"PK", b"zip!"], headers=HEADERS)
    backend.engine.asked_answers["/export"] = answer
    return answer


@pytest.fixture
def api(backend: Backend) -> TestClient:
    """Return a caller on this machine."""
    return local(backend)


def test_the_engine_s_file_is_passed_on(
    backend: Backend, api: TestClient, answer: FakeEngineAnswer
) -> None:
    sent = {**BODY, "model_name": "Nuclei of livers"}

    got = api.post(EXPORT, json=sent)

    assert (got.status_code, got.content) == (200, b"PKzip!")
    assert got.headers["content-type"] == "application/zip"
    assert got.headers["content-disposition"] == 'attachment; filename="nuclei-1.zip"'
    assert got.headers["content-length"] == "6"
    assert got.headers[NOTES_HEADER] == "The network found nothing."
    ((path, headers, content),) = backend.engine.asked
    assert (path, headers[MODEL_HEADER]) == ("/export", "nuclei-1")
    assert json.loads(content) == sent
    assert answer.is_closed


def test_a_model_of_a_project_is_named_with_it(
    backend: Backend, api: TestClient, answer: FakeEngineAnswer
) -> None:
    api.post(f"{EXPORT}?project=lebér", json=BODY)
    ((_, headers, _),) = backend.engine.asked
    assert headers[MODEL_HEADER] == "leb%C3%A9r%2Fnuclei-1"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "at least one"),
        ({"authors": []}, "at least one"),
        ({**BODY, "uploader": {"email": "nobody"}}, "no e-mail address"),
        ({**BODY, "format": "onnx"}, "bioimageio or cellpose"),
        ({**BODY, "licens": "MIT"}, "licens"),
        ({**BODY, "sample": "%"}, "base64"),
        ([], "not as it must be"),
    ],
)
def test_a_wrong_request_does_not_reach_the_engine(
    backend: Backend, api: TestClient, answer: FakeEngineAnswer, body: Any, sentence: str
) -> None:
    assert sentence in problem(api.post(EXPORT, json=body), 400, "request.invalid")
    assert backend.engine.asked == []


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (ModelNotFound("There is no model 'nuclei-1'."), 404, "request.not_found"),
        (CheckpointInvalid("It is damaged."), 422, "model.checkpoint"),
        (EngineError("It does not pass."), 502, "engine.failed"),
        (Busy("Another model is being exported."), 503, "backend.busy"),
        (EngineUnavailable(), 503, "engine.unavailable"),
    ],
)
def test_what_the_engine_refuses_is_a_problem(
    backend: Backend, api: TestClient, failure: BackendError, status: int, code: str
) -> None:
    backend.engine.failures.append(failure)
    assert problem(api.post(EXPORT, json=BODY), status, code) == failure.message
