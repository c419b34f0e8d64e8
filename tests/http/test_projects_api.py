"""/api/v1/projects: which there are, and their outlines as files."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from ml_backend.errors import Conflict, EngineUnavailable
from tests.fakes import FakeEngineAnswer
from tests.http.conftest import Backend, MakeBackend

HERE = ("127.0.0.1", 50000)
EXPORT = "/api/v1/projects/1/export"


@pytest.fixture
def backend(make_backend: MakeBackend) -> Backend:
    """Return an application that a project is connected to."""
    backend = make_backend()
    assert backend.setup("1.2").status_code == 200
    return backend


@pytest.fixture
def api(backend: Backend) -> TestClient:
    """Return a caller on this machine."""
    return TestClient(
        backend.app,
        base_url="http://127.0.0.1:9090",
        client=HERE,
        raise_server_exceptions=False,
    )


def code(answer: Any) -> tuple[int, str]:
    """Return the status and the code of a problem."""
    return answer.status_code, answer.json()["code"]


def test_projects_are_listed_with_what_they_serve(backend: Backend, api: TestClient) -> None:
    backend.setup("2.3", "<View/>")

    first, second = api.get("/api/v1/projects").json()["items"]

    assert (first["id"], first["key"]) == (1, "http://ls.example#1.2")
    assert first["release"].startswith("cells-1-")
    assert first["label_config_error"] is None
    assert second["release"] is None
    assert second["label_config_error"]
    assert "access_token" not in json.dumps([first, second])


def test_projects_come_in_pages(backend: Backend, api: TestClient) -> None:
    backend.setup("2.3")

    first = api.get("/api/v1/projects", params={"limit": 1}).json()
    second = api.get("/api/v1/projects", params={"limit": 1, "after": first["next"]}).json()

    assert [one["id"] for one in first["items"] + second["items"]] == [1, 2]
    assert second["next"] is None


def test_an_archive_of_the_engine_is_passed_on(backend: Backend, api: TestClient) -> None:
    headers = {
        "content-type": "application/zip",
        "content-disposition": 'attachment; filename="project-1.zip"',
    }
    answer = FakeEngineAnswer([b"PK", b"..."], headers)
    backend.engine.asked_answers["/export-project"] = answer

    got = api.get(EXPORT, params={"what": "predictions", "format": "coco", "images": "true"})

    (path, sent, body) = backend.engine.asked[0]
    assert (got.status_code, got.content) == (200, b"PK...")
    assert got.headers["content-disposition"] == headers["content-disposition"]
    assert answer.is_closed
    assert (path, sent["X-Model"]) == ("/export-project", "http%3A%2F%2Fls.example%231.2")
    assert json.loads(body) == {
        "what": "predictions",
        "format": "coco",
        "images": True,
        "every": False,
        "version": None,
    }


@pytest.mark.parametrize(
    "query", [{"what": "drafts"}, {"format": "xml"}, {"images": "maybe"}, {"version": "v" * 501}]
)
def test_what_cannot_be_exported_is_400(api: TestClient, query: dict[str, str]) -> None:
    assert code(api.get(EXPORT, params=query)) == (400, "request.invalid")


def test_an_unknown_project_is_404(api: TestClient) -> None:
    for name in ("7", "x", "%00"):
        answer = api.get(f"/api/v1/projects/{name}/export")

        assert code(answer) == (404, "request.not_found")


def test_what_the_engine_refuses_is_refused(backend: Backend, api: TestClient) -> None:
    backend.engine.failures += [Conflict("Project 1 serves no model yet."), EngineUnavailable()]

    assert code(api.get(EXPORT)) == (409, "request.conflict")
    assert code(api.get(EXPORT)) == (503, "engine.unavailable")
