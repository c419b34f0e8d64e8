"""What an engine that serves a toolkit class answers."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from ml_backend.domain import LabelConfig, LabelStudioAccess, Prediction, ProjectKey, Release
from ml_backend.errors import BackendError, EngineUnavailable, ToolkitError
from ml_backend.processes.engine import EngineApp, create_engine_app
from ml_backend.processes.engine_metrics import EngineMetrics
from ml_backend.processes.toolkit_routes import toolkit_router
from ml_backend.service.predictions import PredictionRequest

PROJECT = ProjectKey(origin="http://ls.example", project_id=1, created_at=2)


class FakePredictions:
    """Answers as a test chooses, and keeps what it was asked."""

    def __init__(self) -> None:
        self.failure: BackendError | None = None
        self.asked: list[PredictionRequest] = []
        self.set_up_for: list[tuple[ProjectKey, str, float]] = []

    def predict(self, request: PredictionRequest) -> list[Prediction | None]:
        self.asked.append(request)
        if self.failure is not None:
            raise self.failure
        return [None for _ in request.tasks]

    def set_up(self, project: ProjectKey, label_config: str, *, budget_s: float) -> str | None:
        self.set_up_for.append((project, label_config, budget_s))
        if self.failure is not None:
            raise self.failure
        return "v1"

    def depth(self) -> int:
        return 0


@pytest.fixture
def predictions() -> FakePredictions:
    return FakePredictions()


@pytest.fixture
def client(predictions: FakePredictions) -> TestClient:
    def find_release(project: ProjectKey, version: str) -> Release:
        return Release(version=version, components={}, label_config="", project=project)

    engine = EngineApp(
        predictions,
        find_project=lambda _text: PROJECT,
        find_release=find_release,
        access=lambda _project: LabelStudioAccess(origin=None),
        device="toolkit",
        slots=2,
        secret="hush",
        metrics=EngineMetrics("test"),
        parse=lambda _config: LabelConfig(controls=()),
    )
    app = create_engine_app(engine, routers=[toolkit_router(predictions, "Mood")])
    return TestClient(app, headers={"Authorization": "Bearer hush"})


def predict(client: TestClient, **more: Any) -> Any:
    body = {
        "project": str(PROJECT),
        "release": "v1",
        "label_config": "no label config of ours",
        "tasks": [{"id": 1, "data": {"text": "a"}, "row": {"annotations": [1]}}],
        "budget_s": 5,
        **more,
    }
    return client.post("/predict", json=body)


def test_rows_and_what_is_drawn_reach_the_class(
    client: TestClient, predictions: FakePredictions
) -> None:
    drawn = {"result": []}
    assert predict(client, context=drawn).json() == {"results": [{}]}
    [asked] = predictions.asked
    assert asked.context == drawn
    assert asked.tasks[0].row == {"annotations": [1]}


def test_a_release_that_was_replaced_is_to_be_asked_for_again(
    client: TestClient, predictions: FakePredictions
) -> None:
    predictions.failure = EngineUnavailable("v1 is v2 by now.")
    assert predict(client).status_code == 503


def test_a_class_that_fails_is_told_as_an_error(
    client: TestClient, predictions: FakePredictions
) -> None:
    predictions.failure = ToolkitError("setup() of Mood failed.")
    answer = predict(client)
    assert answer.status_code == 422
    assert answer.json() == {"code": "toolkit.failed", "message": "setup() of Mood failed."}


def test_a_project_is_set_up(client: TestClient, predictions: FakePredictions) -> None:
    body = {"project": str(PROJECT), "label_config": "<View/>", "budget_s": 1.5}
    assert client.post("/toolkit/setup", json=body).json() == {"version": "v1"}
    assert predictions.set_up_for == [(PROJECT, "<View/>", 1.5)]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"project": "x", "label_config": "<View/>", "budget_s": 1},
        {"project": str(PROJECT), "label_config": "<View/>", "budget_s": 0},
        {"project": str(PROJECT), "label_config": 5, "budget_s": 1},
    ],
)
def test_a_bad_setup_is_refused(
    client: TestClient, predictions: FakePredictions, body: dict[str, Any]
) -> None:
    assert client.post("/toolkit/setup", json=body).status_code in (400, 422)
    assert predictions.set_up_for == []


def test_what_only_our_networks_can_do_is_refused_with_a_sentence(client: TestClient) -> None:
    answer = client.post("/infer", json={})
    assert answer.status_code == 400
    assert "toolkit class Mood" in answer.json()["message"]


def test_strangers_are_kept_out(client: TestClient) -> None:
    answer = client.post("/toolkit/setup", json={}, headers={"Authorization": "Bearer x"})
    assert answer.status_code == 401
