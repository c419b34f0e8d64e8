"""Every request that Label Studio 1.23.2 was recorded to send gets the answer it needs."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.http.conftest import PAYLOADS, Backend, MakeBackend, recorded

NAMES = sorted(path.stem for path in PAYLOADS.glob("*.json"))
PREDICTS = [name for name in NAMES if name.startswith("predict_")]
SETUPS = [name for name in NAMES if name.startswith("setup")]
WEBHOOKS = [name for name in NAMES if name.startswith("webhook_")]


def send(backend: Backend, name: str) -> httpx.Response:
    """Send a recorded request with the headers that matter."""
    request = recorded(name)
    wanted = {"authorization", "content-type", "user-agent", "accept"}
    headers = {key: value for key, value in request["headers"] if key.lower() in wanted}
    answer: Any = backend.client.request(
        request["method"], request["path"], json=request["body"], headers=headers
    )
    return answer


def test_health_is_json_once_the_model_is_resolved(backend: Backend) -> None:
    answer = send(backend, "health")

    assert answer.status_code == 200
    assert answer.json()["status"] == "UP"
    assert answer.json()["model_class"] == "cells-1"


@pytest.mark.parametrize("name", SETUPS)
def test_setup_answers_the_version_that_is_served(backend: Backend, name: str) -> None:
    answer = send(backend, name)

    project = backend.own.projects.find(recorded(name)["body"]["project"])
    assert project is not None
    release = backend.own.releases.active(project.key)
    assert release is not None
    assert answer.status_code == 200
    assert answer.json()["model_version"] == release.version
    assert project.hostname == recorded(name)["body"]["hostname"]


@pytest.mark.parametrize("name", PREDICTS)
def test_predict_answers_one_valid_entry_per_task(backend: Backend, name: str) -> None:
    send(backend, "setup")
    tasks = recorded(name)["body"]["tasks"]

    answer = send(backend, name)

    results = answer.json()["results"]
    call = backend.engine.calls[-1]
    assert answer.status_code == 200
    assert len(results) == len(tasks)
    assert {entry["model_version"] for entry in results} == {call.release}
    assert [(task.id, task.data) for task in call.tasks] == [
        (task["id"], task["data"]) for task in tasks
    ]


def test_predictions_carry_the_version_of_setup_to_the_letter(backend: Backend) -> None:
    version = send(backend, "setup").json()["model_version"]

    results = send(backend, "predict_batch").json()["results"]

    assert {entry["model_version"] for entry in results} == {version}


@pytest.mark.parametrize("name", WEBHOOKS)
def test_webhooks_are_recorded_as_jobs(backend: Backend, name: str) -> None:
    answer = send(backend, name)

    event = backend.own.events.get(answer.json()["job"])
    assert event is not None
    assert answer.status_code == 201
    assert answer.json()["status"] == "recorded"
    assert event.action == recorded(name)["body"]["action"]
    assert event.project_id == recorded(name)["body"]["project"]["id"]


def test_the_same_webhook_twice_is_one_job(backend: Backend) -> None:
    jobs = {send(backend, "webhook_ANNOTATION_CREATED").json()["job"] for _ in range(2)}

    assert len(jobs) == 1


@pytest.mark.parametrize("name", ["versions_200", "versions_404"])
def test_versions_are_those_of_the_project_seen_last(backend: Backend, name: str) -> None:
    version = send(backend, "setup").json()["model_version"]

    answer = send(backend, name)

    assert answer.status_code == 200
    assert answer.json() == {"versions": [version]}


def test_recorded_basic_auth_opens_a_backend_that_wants_it(make_backend: MakeBackend) -> None:
    backend = make_backend(basic_auth=("u", "p"))

    assert send(backend, "setup_basic_auth_extra_params").status_code == 200
    assert send(backend, "predict_interactive").status_code == 200
    assert send(backend, "setup").status_code == 401
