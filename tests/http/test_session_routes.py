"""/api/v1: starting, finding, restarting and deleting trainings, and what they learned from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from ml_backend.callers import Role
from ml_backend.datasets import DatasetSource
from ml_backend.learning import (
    EpochPoint,
    Session,
    SessionState,
    TrainingParameters,
    Trigger,
    Version,
    VersionState,
)
from ml_backend.service.training_parameters import PARAMETERS
from ml_backend.store.database import Database
from ml_backend.store.datasets import Datasets
from ml_backend.store.sessions import Sessions
from ml_backend.store.tokens import Tokens
from ml_backend.store.trainers import Trainers
from tests.http.conftest import COMPONENT, Backend, MakeBackend
from tests.http.test_api import NOWHERE, claimed, local, problem, requested, rows_of

As = Callable[[Role, str], TestClient]


@pytest.fixture
def backend(make_backend: MakeBackend, tmp_path: Path) -> Backend:
    """Return an application that a project is connected to, with a folder of images."""
    (tmp_path / "data" / "nuclei").mkdir(parents=True)
    backend = make_backend()
    assert backend.setup("1.2").status_code == 200
    return backend


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Return the path of the folder of images."""
    return str(tmp_path / "data" / "nuclei")


@pytest.fixture
def api(backend: Backend) -> TestClient:
    """Return a caller on this machine."""
    return local(backend)


@pytest.fixture
def database(backend: Backend) -> Database:
    """Return the records."""
    found: Database = backend.own.projects._database
    return found


@pytest.fixture
def sessions(backend: Backend) -> Sessions:
    """Return the rows that a trainer writes."""
    return rows_of(backend)


@pytest.fixture
def caller(backend: Backend, database: Database) -> As:
    """Return what makes callers with tokens."""
    tokens = Tokens(database)

    def caller(role: Role, name: str) -> TestClient:
        token, text = tokens.create(name, role)
        assert token.role is role
        return local(backend, Authorization=f"Bearer {text}")

    return caller


def ended(
    sessions: Sessions, session: Session, state: str = "stopped", version: str | None = None
) -> str:
    """Return the id of a session that a trainer has worked on."""
    lease = claimed(sessions, session)
    sessions.point(lease, EpochPoint(epoch=1, step=4, loss=0.5, learning_rate=1e-4))
    sessions.finish(lease, SessionState(state), message="done", version=version)
    return session.id


# Starting a project


def test_a_project_is_trained_as_the_body_says(api: TestClient) -> None:
    body = {"project": 1, "n_epochs": 7, "enable_clahe": True, "seed": None, "label": "cells"}

    answer = api.post("/api/v1/sessions", json=body)

    (item,) = answer.json()["items"]
    assert answer.status_code == 202
    assert (item["label"], item["dataset"], item["base"]) == ("cells", None, None)
    assert (item["status"], item["restarted_from"], item["test"]) == ("queued", None, None)
    assert (item["parameters"]["n_epochs"], item["parameters"]["enable_clahe"]) == (7, True)
    assert item["parameters"]["learning_rate"] is None


def test_another_wish_while_one_waits_is_a_conflict(api: TestClient) -> None:
    (first,) = api.post("/api/v1/sessions", json={"project": 1}).json()["items"]

    answer = api.post("/api/v1/sessions", json={"project": 1, "n_epochs": 3})

    assert first["id"] in problem(answer, 409, "request.conflict")


# Starting a dataset


def test_a_folder_is_trained_on(api: TestClient, folder: str) -> None:
    body = {
        "artifact": folder,
        "train_images": "images/*.tif",
        "train_annotations": "masks/*_label.tif",
        "test_images": None,
        "model": "nuclei-1",
        "n_epochs": 3,
        "learning_rate": 1e-5,
        "label": "nuclei",
    }

    answer = api.post("/api/v1/sessions", json=body)

    (item,) = answer.json()["items"]
    assert answer.status_code == 202
    assert (item["dataset"], item["project"], item["controls"]) == ("nuclei", None, ["masks"])
    assert (item["base"], item["label"], item["trigger"]) == ("nuclei-1", "nuclei", "person")
    (listed,) = api.get("/api/v1/datasets").json()["items"]
    assert (listed["name"], listed["sessions"], listed["models"]) == ("nuclei", 1, 0)
    assert listed["source"] == {
        "root": folder,
        "train_images": "images/*.tif",
        "train_annotations": "masks/*_label.tif",
        "test_images": None,
        "test_annotations": None,
        "metadata_dir": None,
    }
    (again,) = api.post("/api/v1/sessions", json={"artifact": "nuclei"}).json()["items"]
    assert again["id"] != item["id"]
    assert api.get("/api/v1/datasets").json()["items"][0]["sessions"] == 2


def test_the_secret_part_of_an_address_is_not_shown(api: TestClient) -> None:
    address = "https://host/sets/yeast.zip?signature=secret#x"

    started = api.post("/api/v1/sessions", json={"artifact": address})
    listed = api.get("/api/v1/datasets")

    assert started.status_code == 202
    assert listed.json()["items"][0]["source"]["root"] == "https://host/sets/yeast.zip"
    assert "secret" not in started.text + listed.text


BAD_BODIES: list[tuple[Any, int, str]] = [
    ({}, 400, "names a project"),
    ([], 400, "names a project"),
    ({"project": True}, 400, "names a project"),
    ({"project": [1]}, 400, "names a project"),
    ({"artifact": 3}, 400, "artifact must be a text"),
    ({"artifact": None}, 400, "names a project"),
    ({"project": 1, "artifact": "FOLDER"}, 400, "one of them"),
    ({"project": 1, "test_images": "x/"}, 400, "one of them"),
    ({"project": 1, "model": "cpsam"}, 400, "model_name"),
    ({"project": 1, "epochs": 3}, 400, "'epochs', which is not known; known are project"),
    ({"project": 1, "n_epochs": 0}, 400, "n_epochs is 0; it must be a whole number from 1"),
    ({"project": 1, "n_epochs": "5", "seed": -1}, 400, "seed is -1"),
    ({"project": 1, "lora_rank": 4}, 400, "lora_rank"),
    ({"project": 1, "label": 3}, 400, "label must be a text"),
    ({"project": 1, "label": "x" * 101}, 400, "label must be at most"),
    ({"artifact": "FOLDER", "from_active": True}, 400, "`model` instead"),
    ({"artifact": "FOLDER", "train_images": "../x"}, 400, "leads out"),
    ({"artifact": "FOLDER", "train_images": 3}, 400, "train_images must be a text"),
    ({"artifact": "/etc"}, 400, "DATA_ROOTS"),
    ({"artifact": "FOLDER/none"}, 400, "There is no dataset at"),
    ({"artifact": "ftp://host/x.zip"}, 400, "no address of an archive"),
    ({"artifact": "unknown"}, 404, "There is no dataset 'unknown'"),
    ({"artifact": "FOLDER", "model": "/etc/passwd"}, 400, "DATA_ROOTS"),
    ({"artifact": "FOLDER", "model": "cpsan"}, 422, "There is no model or file 'cpsan'"),
    ({"artifact": "FOLDER", "model": NOWHERE}, 422, "There is no model or file"),
    ({"artifact": "a\0b"}, 400, "printable"),
]


@pytest.mark.parametrize(("body", "status", "said"), BAD_BODIES, ids=str)
def test_a_start_that_cannot_be_is_refused_and_begins_nothing(
    api: TestClient, sessions: Sessions, folder: str, body: Any, status: int, said: str
) -> None:
    if isinstance(body, dict):
        body = {
            name: value.replace("FOLDER", folder) if isinstance(value, str) else value
            for name, value in body.items()
        }

    answer = api.post("/api/v1/sessions", json=body)

    code = {400: "request.invalid", 404: "request.not_found", 422: "model.not_found"}[status]
    assert said in problem(answer, status, code)
    assert sessions.find() == []


def test_bodies_that_are_too_large_or_no_json_are_refused(api: TestClient) -> None:
    for content, status in ((b"x" * 200_000, 413), (b"\xff", 400), (b'{"project": ' * 5, 400)):
        assert api.post("/api/v1/sessions", content=content).status_code == status
    assert api.post("/api/v1/sessions", content=b'{"project":' + b"[" * 90_000).status_code == 400


def test_the_same_start_with_the_same_key_starts_once(
    api: TestClient, sessions: Sessions, folder: str
) -> None:
    headers = {"Idempotency-Key": "one"}
    body = {"artifact": folder}

    first = api.post("/api/v1/sessions", json=body, headers=headers)
    again = api.post("/api/v1/sessions", json=body, headers=headers)
    other = api.post("/api/v1/sessions", json={**body, "n_epochs": 3}, headers=headers)

    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert problem(other, 422, "request.key_reused")
    assert len(sessions.find()) == 1
    old = ended(sessions, sessions.find()[0])
    path = f"/api/v1/sessions/{old}/restart"
    restarts = [api.post(path, headers={"Idempotency-Key": "two"}).json()["id"] for _ in range(3)]
    assert len(set(restarts)) == 1
    assert len(sessions.find()) == 2


# Finding


def test_sessions_are_found_by_everything_that_is_known_of_them(
    api: TestClient, sessions: Sessions, database: Database
) -> None:
    datasets = Datasets(database)
    names = [datasets.register(DatasetSource(root=root)).name for root in ("/a", "/b")]
    made = {}
    for state, dataset, label, owner in (
        ("queued", names[0], "cells", "ann"),
        ("completed", names[0], "yeast", "ann"),
        ("failed", names[1], "cells", "ben"),
        ("stopped", names[1], None, None),
        ("running", None, "cells", None),
        ("unknown", names[1], None, "ann"),
    ):
        session = requested(sessions, state, dataset=dataset, label=label, owner=owner)
        made[state] = session.id
        if state in ("completed", "failed", "stopped"):
            ended(sessions, session, state)
        elif state != "queued":
            lease_s = 60 if state == "running" else -1
            assert sessions.claim(session.id, owner="trainer", lease_s=lease_s) is not None

    def found(query: str) -> set[str]:
        items = api.get(f"/api/v1/sessions?{query}").json()["items"]
        ids = {session_id: state for state, session_id in made.items()}
        assert all(item["status"] == ids[item["id"]] for item in items)
        return {ids[item["id"]] for item in items}

    assert found("") == set(made)
    for state in made:
        assert found(f"status_types={state}") == {state}
    assert found("status_types=running&status_types=unknown") == {"running", "unknown"}
    assert found("state=running") == {"running", "unknown"}
    assert found("dataset=a") == {"queued", "completed"}
    assert found("dataset=a&dataset=b") == {*made} - {"running"}
    assert found("label=cells") == {"queued", "failed", "running"}
    assert found("label=cells&label=yeast&dataset=a") == {"queued", "completed"}
    assert found("owner=ann") == {"queued", "completed", "unknown"}
    assert found("owner=ann&status_types=unknown") == {"unknown"}
    assert found("dataset=none") == found("label=%00") == found("owner=nobody") == set()


def test_filtered_pages_follow_each_other(api: TestClient, sessions: Sessions) -> None:
    made = [requested(sessions, dataset="a", label=["even", "odd"][n % 2]).id for n in range(9)]

    pages, after = [], ""
    while after is not None:
        query = f"label=even&limit=2{after}"
        page = api.get(f"/api/v1/sessions?{query}").json()
        pages.append([item["id"] for item in page["items"]])
        after = None if page["next"] is None else f"&after={page['next']}"

    assert [len(page) for page in pages] == [2, 2, 1]
    assert [session_id for page in pages for session_id in page] == made[::-2]


@pytest.mark.parametrize(
    "query",
    [
        "status_types=dead",
        "status_types=running&status_types=x",
        "&".join(["dataset=x"] * 101),
        f"label={'x' * 501}",
        f"owner={'x' * 501}",
    ],
    ids=lambda query: query[:30],
)
def test_filters_that_make_no_sense_are_named(api: TestClient, query: str) -> None:
    name = query.partition("=")[0]
    sentence = problem(api.get(f"/api/v1/sessions?{query}"), 400, "request.invalid")
    assert name in sentence or sentence.startswith("The request is invalid")


# Restarting


def test_a_restart_is_a_new_session_with_as_many_epochs_as_are_asked_for(
    api: TestClient, sessions: Sessions
) -> None:
    old = ended(sessions, requested(sessions, dataset="a", label="x"))

    answer = api.post(f"/api/v1/sessions/{old[:8]}/restart", json={"n_epochs": 40})
    same = api.post(f"/api/v1/sessions/{old}/restart")
    empty = api.post(f"/api/v1/sessions/{old}/restart", json={"n_epochs": None})

    begun = answer.json()
    assert answer.status_code == 202
    assert (begun["restarted_from"], begun["state"], begun["label"]) == (old, "queued", "x")
    assert begun["parameters"]["n_epochs"] == 40
    assert same.json()["parameters"]["n_epochs"] == 9
    assert empty.status_code == 202
    assert len({old, begun["id"], same.json()["id"], empty.json()["id"]}) == 4
    assert api.get(f"/api/v1/sessions/{old}").json()["state"] == "stopped"


def test_what_has_not_ended_or_never_ran_is_not_restarted(
    api: TestClient, sessions: Sessions
) -> None:
    waiting = requested(sessions, "a")
    running = requested(sessions, "b")
    claimed(sessions, running)
    for session, said in ((waiting, "is queued"), (running, "is running")):
        answer = api.post(f"/api/v1/sessions/{session.id}/restart")
        assert said in problem(answer, 409, "request.conflict")
    sessions.request_stop(waiting.id)
    answer = api.post(f"/api/v1/sessions/{waiting.id}/restart")
    assert "never ran" in problem(answer, 409, "request.conflict")
    assert len(sessions.find()) == 2


@pytest.mark.parametrize(
    "body", [{"n_epochs": 0}, {"n_epochs": "3"}, {"epochs": 3}, {"n_epochs": 3, "seed": 1}, [], 3]
)
def test_a_restart_takes_epochs_and_nothing_else(
    api: TestClient, sessions: Sessions, body: Any
) -> None:
    old = ended(sessions, requested(sessions))
    problem(api.post(f"/api/v1/sessions/{old}/restart", json=body), 400, "request.invalid")
    assert len(sessions.find()) == 1


# Deleting


def test_what_has_ended_is_deleted_and_its_model_stays(
    backend: Backend, api: TestClient, sessions: Sessions
) -> None:
    session = requested(sessions)
    old = ended(sessions, session, "completed", "v1")
    backend.own.versions.add(version(session, "v1"))

    answer = api.delete(f"/api/v1/sessions/{old}")

    assert (answer.status_code, answer.content) == (204, b"")
    for path in ("", "/curves", "/debug"):
        problem(api.get(f"/api/v1/sessions/{old}{path}"), 404, "request.not_found")
    problem(api.delete(f"/api/v1/sessions/{old}"), 404, "request.not_found")
    assert sessions.was_deleted(old)
    assert backend.own.versions.get(session.project, "v1") is not None


def test_what_waits_or_runs_is_not_deleted(api: TestClient, sessions: Sessions) -> None:
    waiting, running = requested(sessions, "a"), requested(sessions, "b")
    claimed(sessions, running)
    old = ended(sessions, requested(sessions, "c"))
    begun = api.post(f"/api/v1/sessions/{old}/restart").json()["id"]

    for session_id in (waiting.id, running.id):
        sentence = problem(api.delete(f"/api/v1/sessions/{session_id}"), 409, "request.conflict")
        assert "stop it first" in sentence
    assert begun in problem(api.delete(f"/api/v1/sessions/{old}"), 409, "request.conflict")
    assert len(sessions.find()) == 4


# Who may do what


def test_callers_steer_their_own_sessions_and_admins_all(caller: As, sessions: Sessions) -> None:
    ann, ben = caller(Role.TRAIN, "ann"), caller(Role.TRAIN, "ben")
    root, guest = caller(Role.ADMIN, "root"), caller(Role.PREDICT, "guest")
    (started,) = ann.post("/api/v1/sessions", json={"project": 1}).json()["items"]
    assert started["owner"] == "ann"
    policy = requested(sessions, "other")  # nobody's
    of_ann, of_nobody = f"/api/v1/sessions/{started['id']}", f"/api/v1/sessions/{policy.id}"

    for who in (ben, guest):
        for path in (of_ann, of_nobody):
            problem(who.post(f"{path}/stop"), 403, "request.forbidden")
    problem(ann.post(f"{of_nobody}/stop"), 403, "request.forbidden")
    assert ann.post(f"{of_ann}/stop").status_code == 202
    assert root.post(f"{of_nobody}/stop").status_code == 202

    problem(ben.post(f"{of_ann}/resume"), 403, "request.forbidden")
    assert ann.post(f"{of_ann}/resume").status_code == 202
    ended(sessions, replace(policy, id=started["id"]))

    begun = ben.post(f"{of_ann}/restart")  # a new one, and his
    assert (begun.status_code, begun.json()["owner"]) == (202, "ben")
    ben.post(f"/api/v1/sessions/{begun.json()['id']}/stop")
    for who in (ben, guest):
        problem(who.delete(of_ann), 403, "request.forbidden")
    assert ann.delete(of_ann).status_code == 204
    assert root.delete(of_nobody).status_code == 204


def test_whoever_may_predict_may_look_and_nothing_else(caller: As, sessions: Sessions) -> None:
    guest = caller(Role.PREDICT, "guest")
    session = requested(sessions)
    one = f"/api/v1/sessions/{session.id}"

    for path in (
        *("/api/v1/sessions", one, f"{one}/curves", f"{one}/debug", f"{one}/manifest"),
        *("/api/v1/datasets", "/api/v1/training-parameters"),
    ):
        assert guest.get(path).status_code == 200
    for method, path in (
        ("POST", "/api/v1/sessions"),
        *(("POST", f"{one}/{verb}") for verb in ("stop", "resume", "restart")),
        ("DELETE", one),
    ):
        answer = guest.request(method, path, json={"project": 1})
        assert "train" in problem(answer, 403, "request.forbidden")
    assert len(sessions.find()) == 1


# Why


def test_a_session_says_why_it_waits(
    api: TestClient, sessions: Sessions, database: Database
) -> None:
    first, second = requested(sessions, "a"), requested(sessions, "b")

    alone = api.get(f"/api/v1/sessions/{second.id[:8]}/debug").json()
    Trainers(database).seen("host:1")
    sessions.claim(first.id, owner="host:1", lease_s=60)
    busy = api.get(f"/api/v1/sessions/{second.id}/debug").json()
    running = api.get(f"/api/v1/sessions/{first.id}/debug").json()

    assert (alone["id"], alone["state"], alone["queue_position"]) == (second.id, "queued", 2)
    assert "no trainer was there" in alone["reason"]
    assert "ml-backend trainer" in alone["next_step"]
    assert (alone["trainers"], alone["trainer"]) == ([], None)
    assert first.id in busy["reason"]
    assert (running["status"], running["trainer"], running["attempts"]) == ("running", "host:1", 1)
    assert 0 <= running["heartbeat_age_s"] < 60
    assert running["lease"]["owner"] == "host:1"
    assert 0 < running["lease"]["seconds_left"] <= 60
    assert running["lease"]["until"].endswith("+00:00")


def test_one_whose_trainer_is_gone_says_so(api: TestClient, sessions: Sessions) -> None:
    session = requested(sessions)
    sessions.claim(session.id, owner="host:1", lease_s=-5)

    said = api.get(f"/api/v1/sessions/{session.id}/debug").json()

    assert (said["state"], said["status"]) == ("running", "unknown")
    assert "host:1 was not heard of" in said["reason"]
    assert said["lease"]["seconds_left"] < 0


# Parameters


def test_parameters_are_listed_with_our_defaults_and_the_references(api: TestClient) -> None:
    page = api.get("/api/v1/training-parameters").json()

    items = {item["name"]: item for item in page["items"]}
    assert list(items) == [parameter.name for parameter in PARAMETERS]
    assert page["next"] is None
    epochs = items["n_epochs"]
    assert epochs["defaults"] == {
        "residual-unet": 60,
        "sam-vitl": 100,
        "dino-vitl": 100,
        "dino-vitb": 100,
    }
    assert (epochs["reference_default"], epochs["allowed"]) == (
        10,
        "a whole number from 1 to 100000",
    )
    assert "Cellpose" in epochs["why"]
    assert items["learning_rate"]["reference_default"] == 1e-6
    assert (items["from_active"]["projects_only"], items["seed"]["why"]) == (True, None)


def test_the_description_of_a_start_has_every_parameter_with_its_range(backend: Backend) -> None:
    operation = backend.app.openapi()["paths"]["/api/v1/sessions"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]

    for parameter in PARAMETERS:
        described = schema["properties"][parameter.name]
        assert parameter.allowed in described["description"]
    assert schema["properties"]["n_epochs"]["minimum"] == 1
    assert schema["properties"]["learning_rate"]["exclusiveMinimum"] == 0
    assert schema["properties"]["crop"]["multipleOf"] == 16
    assert schema["additionalProperties"] is False


# Datasets and their models


def version(session: Session, name: str, **more: Any) -> Version:
    """Return a network that a session has made."""
    return Version(
        **{
            "project": session.project,
            "name": name,
            "state": VersionState.CANDIDATE,
            "controls": session.controls,
            "component": replace(COMPONENT, name=name, path=f"/secret/{name}"),
            "session_id": session.id,
            "parent": "cells-1",
            "created_at": 1.0,
            "metrics": {},
            **more,
        }
    )


def about(sessions: Sessions, dataset: Any) -> Session:
    """Return a session about a dataset."""
    return sessions.request(
        dataset.key,
        controls=["masks"],
        trigger=Trigger.PERSON,
        parameters=TrainingParameters(),
        dataset=dataset.name,
    )


def test_datasets_are_listed_newest_first_in_pages(api: TestClient, database: Database) -> None:
    datasets = Datasets(database)
    for number in range(5):
        datasets.register(DatasetSource(root=f"/data/set{number}"))

    first = api.get("/api/v1/datasets?limit=3").json()
    second = api.get("/api/v1/datasets", params={"limit": 3, "after": first["next"]}).json()

    names = [item["name"] for item in first["items"] + second["items"]]
    assert names == ["set4", "set3", "set2", "set1", "set0"]
    assert second["next"] is None
    assert first["items"][0]["created_at"].endswith("+00:00")


@pytest.mark.parametrize("after", ["nothing", "%00", "x" * 400])
def test_a_page_after_what_is_not_there_is_404(api: TestClient, after: str) -> None:
    problem(api.get(f"/api/v1/datasets?after={after}"), 404, "request.not_found")


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", f"after={'x' * 600}"])
def test_pages_that_make_no_sense_are_400(api: TestClient, query: str) -> None:
    problem(api.get(f"/api/v1/datasets?{query}"), 400, "request.invalid")
    problem(api.get(f"/api/v1/datasets/x/models?{query}"), 400, "request.invalid")


def test_the_models_of_a_dataset_are_listed(
    backend: Backend, api: TestClient, sessions: Sessions, database: Database
) -> None:
    datasets = Datasets(database)
    used = datasets.register(DatasetSource(root="/data/nuclei"))
    datasets.register(DatasetSource(root="/data/yeast"))
    session = about(sessions, used)
    for number in (1, 2):
        backend.own.versions.add(version(session, f"v{number}", created_at=float(number)))
    backend.own.versions.add(version(requested(sessions), "v1"))

    page = api.get("/api/v1/datasets/nuclei/models").json()
    first = api.get("/api/v1/datasets/nuclei/models?limit=1").json()

    assert [item["name"] for item in page["items"]] == ["v2", "v1"]
    assert [item["id"] for item in page["items"]] == ["v2", "nuclei/v1"]
    for item in page["items"]:
        assert item["dataset"] == "nuclei"
        assert item["url"].startswith("/api/v1/models/")
        assert item["created_at"].endswith("+00:00")
        assert item["session"] == session.id
    assert "/secret/" not in str(page)
    assert (len(first["items"]), first["next"]) == (1, "v2")
    assert api.get("/api/v1/datasets/yeast/models").json() == {"items": [], "next": None}
    problem(api.get("/api/v1/datasets/none/models"), 404, "request.not_found")
    problem(api.get("/api/v1/datasets/%00/models"), 404, "request.not_found")
