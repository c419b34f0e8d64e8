"""What a person in Label Studio sees of /health and /setup."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest

from tests.http.conftest import COMPONENT, CONFIG, Backend, Logged, MakeBackend

REFUSED_CONFIGS = [
    "",
    "no XML",
    "<View>",
    "<View/>",
    '<View><Text name="t" value="$t"/></View>',
    CONFIG.replace("<PolygonLabels", '<PolygonLabels model_diameter="big"'),
]


def reason(answer: httpx.Response) -> str:
    """Return what Label Studio shows: the address that the refusal is sent on to."""
    return str(answer.headers["location"])


@pytest.mark.parametrize("path", ["/", "/health"])
def test_health_waits_for_the_model_with_a_sentence(make_backend: MakeBackend, path: str) -> None:
    backend = make_backend(started=False)

    before = backend.client.get(path)
    backend.start_engine()
    after = backend.client.get(path)

    assert (before.status_code, before.json()["code"]) == (503, "engine.unavailable")
    assert (after.status_code, after.json()["status"]) == (200, "UP")
    assert backend.client.head(path).status_code == 200


def test_health_says_why_a_model_cannot_be_served(make_backend: MakeBackend) -> None:
    backend = make_backend(started=False)
    backend.own.components.record_problem("auto", "The checkpoint is damaged.")

    answer = backend.client.get("/health")

    assert answer.status_code == 503
    assert answer.json()["message"] == "The checkpoint is damaged."


@pytest.mark.parametrize("config", REFUSED_CONFIGS)
def test_an_unusable_label_config_is_refused_where_a_person_reads_it(
    backend: Backend, config: str
) -> None:
    answer = backend.setup(config=config)
    shown = backend.client.get("/" + reason(answer))

    project = backend.own.projects.find("1.2")
    assert answer.status_code == 303
    assert reason(answer).startswith("refused/The_label_config")
    assert not set(reason(answer)) & set(' "<>%')
    assert shown.status_code == 400
    assert project is not None
    assert project.label_config_error is not None


def test_the_refusal_holds_behind_a_path_prefix(backend: Backend) -> None:
    location = reason(backend.setup(config="<View/>"))

    assert httpx.URL("http://proxy/ml/setup").join(location).path.startswith("/ml/refused/")


def test_a_config_that_becomes_usable_is_forgiven(backend: Backend) -> None:
    backend.setup(config="<View/>")

    answer = backend.setup()

    project = backend.own.projects.find("1.2")
    assert answer.status_code == 200
    assert project is not None
    assert project.label_config_error is None


def test_a_model_of_the_config_is_asked_for_and_then_served(backend: Backend) -> None:
    config = CONFIG.replace("<PolygonLabels", '<PolygonLabels model_name="cpsam"')
    before = backend.setup(config=config)
    other = replace(COMPONENT, name="cpsam", sha256="1" * 64)
    wanted = backend.own.components.wanted()
    for requested in wanted:
        backend.own.components.record(requested, other, device="cpu")

    after = backend.setup(config=config)

    assert "still_preparing_the_model_'cpsam'" in reason(before)
    assert wanted == ["cpsam"]
    assert after.json()["model_version"].startswith("cpsam-")


def test_a_model_that_cannot_be_served_is_refused_with_its_reason(backend: Backend) -> None:
    backend.own.components.record_problem("gone.pt", "There is no file gone.pt.")

    answer = backend.setup(
        config=CONFIG.replace("<PolygonLabels", '<PolygonLabels model_name="gone.pt"')
    )

    assert reason(answer) == "refused/There_is_no_file_gone.pt"


def test_warnings_about_the_config_come_with_the_version(backend: Backend) -> None:
    answer = backend.setup(
        config=CONFIG.replace("<PolygonLabels", '<PolygonLabels model_diametre="3"')
    )

    assert answer.status_code == 200
    assert any("model_diametre" in warning for warning in answer.json()["warnings"])


def test_warnings_about_the_config_are_logged_once(backend: Backend, logged: Logged) -> None:
    config = CONFIG.replace("<PolygonLabels", '<PolygonLabels model_diametre="3"')
    for _ in range(2):
        backend.setup()
        backend.setup(config=config)
        backend.setup(config=config)

    lines = [line for line in logged if line["event"] == "label config"]
    assert [line["log_level"] for line in lines] == ["warning"] * 2
    assert lines[0]["project"] == "http://ls.example#1.2"
    assert "model_diametre" in lines[0]["warning"]


def test_the_same_setup_is_the_same_version_and_options_make_another(backend: Backend) -> None:
    first = backend.setup().json()["model_version"]
    again = backend.setup().json()["model_version"]
    prettier = backend.setup(config=CONFIG.replace("><", ">\n  <")).json()["model_version"]
    changed = backend.setup(
        config=CONFIG.replace("<PolygonLabels", '<PolygonLabels model_diameter="30"')
    ).json()["model_version"]

    assert first == again == prettier != changed
    assert backend.client.get("/versions?project=1.2").json()["versions"] == [changed, first]


@pytest.mark.parametrize("extra", [None, {"diameter": 30}, '{"diameter": 30}', "", "text", [1]])
def test_extra_params_of_any_kind_are_taken(backend: Backend, extra: Any) -> None:
    body = {"project": "1.2", "schema": CONFIG, "hostname": "http://x", "extra_params": extra}

    assert backend.client.post("/setup", json=body).status_code == 200


@pytest.mark.parametrize(
    ("hostname", "origin"),
    [
        ("http://LS.example:8080/", "http://ls.example:8080"),
        ("https://host/prefix/", "https://host/prefix"),
        ("http://user:password@host", "http://host"),
        ("host", "unknown"),
        ("http://[", "unknown"),
        (None, "unknown"),
        (3, "unknown"),
    ],
)
def test_a_project_belongs_to_the_origin_that_setup_names(
    backend: Backend, hostname: Any, origin: str
) -> None:
    backend.client.post("/setup", json={"project": "1.2", "schema": CONFIG, "hostname": hostname})

    project = backend.own.projects.find("1.2")
    assert project is not None
    assert project.key.origin == origin


def test_twenty_setups_at_once_write_one_release(backend: Backend) -> None:
    async def all_at_once() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=backend.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            body = {"project": "1.2", "schema": CONFIG, "hostname": "http://ls.example"}
            return await asyncio.gather(*(client.post("/setup", json=body) for _ in range(20)))

    answers = asyncio.run(all_at_once())

    versions = {answer.json()["model_version"] for answer in answers}
    assert len(versions) == 1
    assert backend.client.get("/versions").json() == {"versions": list(versions)}


def test_versions_of_an_unknown_project_are_400(backend: Backend) -> None:
    assert backend.client.get("/versions?project=9.9").status_code == 400


def test_versions_before_any_project_are_the_default(backend: Backend) -> None:
    default = backend.client.get("/health").json()["model_version"]

    assert backend.client.get("/versions").json() == {"versions": [default]}
