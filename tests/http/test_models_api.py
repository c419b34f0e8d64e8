"""/api/v1/models: what there is, what is served of it, and what is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from ml_backend.datasets import DatasetSource
from ml_backend.domain import Component, ProjectKey
from ml_backend.learning import (
    UPLOADS,
    SessionState,
    TrainingParameters,
    Trigger,
    Version,
    VersionState,
)
from ml_backend.model_files.known import built_in_networks
from ml_backend.store.database import Database
from ml_backend.store.datasets import Datasets
from ml_backend.store.releases import Releases
from ml_backend.store.sessions import Sessions
from ml_backend.store.versions import Serving
from tests.http.conftest import Backend, MakeBackend
from tests.http.test_api import local, problem

PROJECT = ProjectKey(origin="http://ls.example", project_id=1, created_at=2)
OTHER = ProjectKey(origin="http://ls.example", project_id=5, created_at=6)
MODELS = "/api/v1/models"


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


def records_of(backend: Backend) -> Database:
    """Return an application's records."""
    database: Database = backend.own.projects._database
    return database


def trained(backend: Backend, name: str, **more: Any) -> Version:
    """Return a version that a session has made."""
    component = Component(
        name=name,
        architecture="residual-unet",
        sha256=name.encode().hex().ljust(64, "0"),
        path=f"/secret/{name}",
        licence="CC0-1.0",
        diameter=30.0,
    )
    fields: dict[str, Any] = {
        "project": PROJECT,
        "name": name,
        "state": VersionState.CANDIDATE,
        "controls": ("cells",),
        "component": component,
        "session_id": "s",
        "parent": "cells-1",
        "created_at": 1.0,
        "metrics": {"rise": 0.1},
    }
    version = Version(**{**fields, **more})
    backend.own.versions.add(version)
    return version


def in_folder(backend: Backend, folder: Path, name: str, **more: Any) -> Version:
    """Return a version whose folder is on this machine."""
    folder = folder / name
    folder.mkdir()
    weights = folder / "weights.safetensors"
    weights.write_bytes(name.encode() * 1000)
    (folder / "manifest.json").write_text(json.dumps({"sha256": "c" * 64}))
    component = Component(
        name=name, architecture="sam-vitl", sha256="c" * 64, path=str(weights), licence="unknown"
    )
    return trained(backend, name, component=component, **more)


def serve(backend: Backend, activation_id: int, version: Version, release: str) -> None:
    """Do what an engine does with an activation."""
    activation = backend.own.versions.claim(activation_id, "engine", 60)
    assert activation is not None
    (origin,) = {*activation.origins.values()}
    serving = Serving(
        component=version.component,
        base_requested="auto",
        version_name=version.name,
        version_project=origin.version_project,
    )
    backend.own.versions.switch(
        activation, overrides={"cells": serving}, release_version=release, owner="engine"
    )


def released(backend: Backend, component: Component, project: ProjectKey = PROJECT) -> str:
    """Return the version string of a release with this network."""
    releases: Releases = backend.own.releases
    return releases.ensure(
        project,
        components={"cells": component},
        canonical_config={},
        label_config="<View/>",
        revision="1",
    ).version


def names(answer: Any) -> list[str]:
    """Return the names of a page."""
    assert answer.status_code == 200, answer.json()
    return [item["name"] for item in answer.json()["items"]]


# Lists


def test_built_in_models_come_first_with_their_licences(backend: Backend, api: TestClient) -> None:
    trained(backend, "v1")

    items = {item["name"]: item for item in api.get(MODELS).json()["items"]}

    (shipped,) = built_in_networks()
    assert list(items) == [
        *("nuclei-1", "cpsam_v2", "cpsam", "cpdino", "cpdino-vitb", "v1"),
    ]
    assert items["nuclei-1"]["kind"] == "built_in"
    assert (items["nuclei-1"]["sha256"], items["nuclei-1"]["available"]) == (shipped.sha256, True)
    assert items["nuclei-1"]["licence"].startswith("CC0")
    assert items["cpsam"]["licence"] == "CC-BY-NC-4.0"
    assert (items["cpsam"]["sha256"], items["cpsam"]["available"]) == (None, False)
    assert "/secret/" not in str(items)


def test_what_an_engine_has_looked_at_is_known_by_its_hash(
    backend: Backend, api: TestClient
) -> None:
    path = backend.own.model_desk.cellpose_dir / "cpsam"
    found = Component(
        name="cpsam", architecture="sam-vitl", sha256="e" * 64, path=str(path), licence="CC-BY-NC"
    )
    backend.own.components.record("cpsam", found, device="cpu")

    assert api.get(f"{MODELS}/cpsam").json()["sha256"] == "e" * 64


def test_trained_models_are_listed_newest_first_with_all_there_is_to_know(
    backend: Backend, api: TestClient
) -> None:
    trained(backend, "v1", parent="nuclei-1", created_at=1.0)
    trained(
        backend,
        "v2",
        parent="v1",
        created_at=2.0,
        message="It does not score better.",
        session_id="f" * 32,
    )

    page = api.get(f"{MODELS}?project=1").json()
    (newest, _) = page["items"]

    assert names(api.get(f"{MODELS}?project=1")) == ["v2", "v1"]
    assert newest["lineage"] == ["v1", "nuclei-1"]
    assert newest["project"]["key"] == str(PROJECT)
    assert newest["url"] == f"{MODELS}/v2"
    assert newest == api.get(newest["url"]).json()
    assert newest["metrics"] == {"rise": 0.1}
    assert (newest["kind"], newest["serves"], newest["dataset"]) == ("candidate", [], None)
    assert (newest["message"], newest["session"]) == ("It does not score better.", "f" * 32)


def test_kinds_and_datasets_are_filters(backend: Backend, api: TestClient) -> None:
    dataset = Datasets(records_of(backend)).register(DatasetSource(root="/data/nuclei"))
    trained(backend, "v1", state=VersionState.PUBLISHED)
    trained(backend, "old", state=VersionState.ARCHIVED)
    trained(backend, "broken", state=VersionState.REFUSED)
    trained(backend, "of-data", project=dataset.key)
    trained(backend, "mine", project=UPLOADS, parent="")

    assert names(api.get(f"{MODELS}?kind=published")) == ["v1"]
    assert names(api.get(f"{MODELS}?kind=archived")) == ["old"]
    assert names(api.get(f"{MODELS}?kind=refused")) == ["broken"]
    assert names(api.get(f"{MODELS}?kind=uploaded")) == ["mine"]
    assert names(api.get(f"{MODELS}?kind=candidate")) == ["of-data"]
    assert names(api.get(f"{MODELS}?dataset=nuclei")) == ["of-data"]
    assert len(names(api.get(f"{MODELS}?kind=built_in"))) == 5
    of_data, mine = (api.get(f"{MODELS}/{name}").json() for name in ("of-data", "mine"))
    assert (of_data["dataset"], of_data["project"]) == ("nuclei", None)
    assert (mine["dataset"], mine["project"], mine["parent"]) == (None, None, None)
    problem(api.get(f"{MODELS}?kind=fine"), 400, "request.invalid")
    assert "nuclei" in problem(api.get(f"{MODELS}?dataset=x"), 404, "request.not_found")
    problem(api.get(f"{MODELS}?dataset=%00"), 404, "request.not_found")


def test_lists_have_pages(backend: Backend, api: TestClient) -> None:
    for number in range(3):
        trained(backend, f"v{number}", created_at=float(number))
        api.post(f"{MODELS}/v{number}/activate")

    for what, name in (("models?project=1&", "name"), ("activations?", "reason")):
        first = api.get(f"/api/v1/{what}limit=2").json()
        second = api.get(f"/api/v1/{what}", params={"limit": 2, "after": first["next"]}).json()
        wrong = api.get(f"/api/v1/{what}after=nothing")

        together = [item[name] for item in first["items"] + second["items"]]
        assert [text[-2:] for text in together] == ["v2", "v1", "v0"][: len(together)]
        assert len(first["items"]) == 2
        problem(wrong, 404, "request.not_found")
    pages = [api.get(f"{MODELS}?limit=4").json()]
    while pages[-1]["next"]:
        after = {"limit": 4, "after": pages[-1]["next"]}
        pages.append(api.get(MODELS, params=after).json())
    assert [len(page["items"]) for page in pages] == [4, 4]


def test_a_model_is_also_found_by_the_session_that_made_it(
    backend: Backend, api: TestClient
) -> None:
    trained(backend, "v1")
    sessions = Sessions(records_of(backend))
    asked = sessions.request(
        PROJECT, controls=["cells"], trigger=Trigger.PERSON, parameters=TrainingParameters()
    )
    without = api.get(f"{MODELS}/{asked.id}")
    lease = sessions.claim(asked.id, owner="trainer", lease_s=60)
    assert lease is not None
    sessions.finish(lease, SessionState.COMPLETED, message="", version="v1")

    assert "has made no model" in problem(without, 404, "request.not_found")
    assert api.get(f"{MODELS}/{asked.id[:12]}").json()["name"] == "v1"


def test_a_licence_is_never_laxer_than_where_the_weights_come_from(
    backend: Backend, api: TestClient
) -> None:
    trained(backend, "v1", parent="cpsam")  # says CC0 of itself
    trained(backend, "v2", parent="v1")

    licences = [item["licence"] for item in api.get(f"{MODELS}?project=1").json()["items"]]

    assert licences == ["CC-BY-NC-4.0", "CC-BY-NC-4.0"]


def test_lineages_that_bite_their_tails_end(backend: Backend, api: TestClient) -> None:
    trained(backend, "v1", parent="v2")
    trained(backend, "v2", parent="v1")

    assert api.get(f"{MODELS}/v1").json()["lineage"] == ["v2", "v1"]


@pytest.mark.parametrize("name", ["v9", "%00", "..%5C..", "v1%0A", "f" * 32, "x" * 3000])
@pytest.mark.parametrize(
    ("method", "ending"),
    [
        ("GET", ""),
        ("GET", "/weights"),
        ("GET", "/pictures"),
        ("GET", "/pictures/embedding.png"),
        ("POST", "/activate"),
        ("POST", "/archive"),
        ("DELETE", ""),
    ],
)
def test_an_unknown_model_is_404(
    backend: Backend, api: TestClient, method: str, ending: str, name: str
) -> None:
    trained(backend, "v1")

    problem(api.request(method, f"{MODELS}/{name}{ending}"), 404, "request.not_found")
    elsewhere = api.request(method, f"{MODELS}/{name}{ending}?project=1")
    problem(elsewhere, 404, "request.not_found")


# Names that several have


def test_a_name_that_two_projects_have_needs_its_owner(backend: Backend, api: TestClient) -> None:
    backend.setup("5.6")
    dataset = Datasets(records_of(backend)).register(DatasetSource(root="/data/nuclei"))
    for project in (PROJECT, OTHER, dataset.key, UPLOADS):
        trained(backend, "v1", project=project)

    ambiguous = api.post(f"{MODELS}/v1/activate")
    chosen = api.post(f"{MODELS}/v1/activate?project=5")
    by_body = api.post(f"{MODELS}/v1/activate", json={"project": 5})

    sentence = problem(ambiguous, 400, "request.invalid")
    for choice in ("'http://ls.example#5.6'", "'nuclei'", "'uploads'"):
        assert choice in sentence
    for answer in (chosen, by_body):
        assert answer.json()["project"]["id"] == 5
        assert set(answer.json()["versions"]) == {"cells"}
    assert api.get(f"{MODELS}/v1?project=nuclei").json()["dataset"] == "nuclei"
    uploaded = api.get(f"{MODELS}/v1?project=uploads").json()
    assert uploaded["kind"] == "uploaded"
    assert api.get(uploaded["url"]).json() == uploaded
    problem(api.get(f"{MODELS}/v1?project=nobody"), 404, "request.not_found")


# Serving


def test_an_activation_is_asked_for_and_can_be_followed(backend: Backend, api: TestClient) -> None:
    trained(backend, "v1")

    answer = api.post(f"{MODELS}/v1/activate")

    asked = answer.json()
    assert (answer.status_code, asked["state"]) == (202, "requested")
    assert asked["versions"] == {"cells": "v1"}
    assert api.get("/api/v1/activations?project=1").json()["items"] == [asked]


def test_what_is_served_is_shown_by_project_and_control(backend: Backend, api: TestClient) -> None:
    version = trained(backend, "v1")
    api.post(f"{MODELS}/v1/activate")
    serve(backend, 1, version, released(backend, version.component))

    serves = api.get(f"{MODELS}/v1").json()["serves"]

    assert serves == [{"project": str(PROJECT), "control": "cells"}]


def test_a_built_in_network_is_shown_with_what_it_serves(backend: Backend, api: TestClient) -> None:
    (shipped,) = built_in_networks()
    component = Component(
        name=shipped.name,
        architecture="residual-unet",
        sha256=shipped.sha256,
        path=str(shipped.path),
        licence=shipped.licence,
    )
    backend.own.releases.activate(PROJECT, released(backend, component))

    assert api.get(f"{MODELS}/nuclei-1").json()["serves"] == [
        {"project": str(PROJECT), "control": "cells"}
    ]


@pytest.mark.parametrize("kind", ["dataset", "upload", "project"])
def test_models_from_elsewhere_are_served_by_the_project_that_is_named(
    backend: Backend, api: TestClient, kind: str
) -> None:
    dataset = Datasets(records_of(backend)).register(DatasetSource(root="/data/nuclei"))
    owner = {"dataset": dataset.key, "upload": UPLOADS, "project": OTHER}[kind]
    version = trained(backend, "mine", project=owner, controls=("masks",))

    nowhere = api.post(f"{MODELS}/mine/activate")
    asked = api.post(f"{MODELS}/mine/activate", json={"project": 1})
    serve(backend, asked.json()["id"], version, released(backend, version.component))

    if kind != "project":
        assert "name the project" in problem(nowhere, 400, "request.invalid")
    assert asked.status_code == 202
    assert asked.json()["versions"] == {"cells": "mine"}
    assert api.get(f"{MODELS}/mine").json()["serves"] == [
        {"project": str(PROJECT), "control": "cells"}
    ]
    problem(api.delete(f"{MODELS}/mine"), 409, "request.conflict")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"project": 1, "controls": ["nothing"]}, 400, "request.invalid"),
        ({"project": 1, "controls": []}, 400, "request.invalid"),
        ({"project": 1, "controls": "cells"}, 400, "request.invalid"),
        ({"project": 9}, 404, "request.not_found"),
        ({"project": {}}, 400, "request.invalid"),
        (["project"], 400, "request.invalid"),
    ],
)
def test_an_activation_that_cannot_be_is_refused(
    backend: Backend, api: TestClient, body: Any, status: int, code: str
) -> None:
    trained(backend, "mine", project=UPLOADS, controls=())

    problem(api.post(f"{MODELS}/mine/activate", json=body), status, code)
    problem(api.post(f"{MODELS}/mine/activate", content=b"\xff{"), 400, "request.invalid")
    assert api.get("/api/v1/activations").json()["items"] == []


def test_what_cannot_be_served_is_not_activated(backend: Backend, api: TestClient) -> None:
    trained(backend, "broken", state=VersionState.REFUSED, message="Its checksum is wrong.")
    trained(backend, "old", state=VersionState.ARCHIVED)

    refused = api.post(f"{MODELS}/broken/activate")
    away = api.post(f"{MODELS}/old/activate")
    built_in = api.post(f"{MODELS}/nuclei-1/activate", json={"project": 1})

    assert "Its checksum is wrong." in problem(refused, 409, "request.conflict")
    assert "was put away" in problem(away, 409, "request.conflict")
    assert "is built in" in problem(built_in, 409, "request.conflict")
    assert api.get("/api/v1/activations").json()["items"] == []


def test_a_rollback_asks_for_what_was_served_before(backend: Backend, api: TestClient) -> None:
    nothing = api.post(f"{MODELS}/rollback", json={"project": 1})
    for name in ("v1", "v2"):
        version = trained(backend, name)
        asked = api.post(f"{MODELS}/{name}/activate").json()
        serve(backend, asked["id"], version, released(backend, version.component))

    answer = api.post(f"{MODELS}/rollback", json={"project": 1})
    to_base = api.post(f"{MODELS}/rollback", json={"project": 1, "to_base": True})

    problem(nothing, 409, "request.conflict")
    assert answer.json()["versions"] == {"cells": "v1"}
    assert to_base.json()["back_to_base"] == ["cells"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"project": null}', b"\xff", b'{"project'])
def test_a_rollback_that_names_no_project_is_400(api: TestClient, body: bytes) -> None:
    answer = api.post(f"{MODELS}/rollback", content=body)

    assert '{"project": 3}' in problem(answer, 400, "request.invalid")


# Keeping


def test_a_model_is_put_away_and_can_be_served_no_more(backend: Backend, api: TestClient) -> None:
    trained(backend, "v1")

    answer = api.post(f"{MODELS}/v1/archive")

    assert (answer.status_code, answer.json()["kind"]) == (200, "archived")
    problem(api.post(f"{MODELS}/v1/activate"), 409, "request.conflict")


def test_a_model_is_deleted_with_its_folder(
    backend: Backend, api: TestClient, tmp_path: Path
) -> None:
    version = in_folder(backend, tmp_path, "v1")
    backend.own.components.record("v1", version.component, device="cpu")

    answer = api.delete(f"{MODELS}/v1")

    assert (answer.status_code, answer.content) == (204, b"")
    assert not (tmp_path / "v1").exists()
    assert backend.own.versions.all(PROJECT) == []
    assert backend.own.components.resolved("v1") is None
    problem(api.delete(f"{MODELS}/v1"), 404, "request.not_found")


def test_files_that_are_not_the_model_s_stay(
    backend: Backend, api: TestClient, tmp_path: Path
) -> None:
    in_folder(backend, tmp_path, "v1")
    (tmp_path / "v1" / "manifest.json").write_text(json.dumps({"sha256": "d" * 64}))

    assert api.delete(f"{MODELS}/v1").status_code == 204
    assert (tmp_path / "v1").is_dir()


def test_a_model_about_to_be_served_is_neither_put_away_nor_deleted(
    backend: Backend, api: TestClient
) -> None:
    trained(backend, "v1")
    api.post(f"{MODELS}/v1/activate")

    for answer in (api.post(f"{MODELS}/v1/archive"), api.delete(f"{MODELS}/v1")):
        assert "is about to serve it" in problem(answer, 409, "request.conflict")


def test_a_model_that_a_label_config_names_stays(backend: Backend, api: TestClient) -> None:
    version = trained(backend, "v1")
    backend.own.releases.activate(PROJECT, released(backend, version.component))

    sentence = problem(api.delete(f"{MODELS}/v1"), 409, "request.conflict")

    assert "label config of project 1 asks for it in cells" in sentence


def test_a_model_that_the_setting_names_stays(backend: Backend, api: TestClient) -> None:
    version = trained(backend, "v1")
    backend.own.releases.record_default(version.component, revision="1")

    assert "MODEL names it" in problem(api.delete(f"{MODELS}/v1"), 409, "request.conflict")


@pytest.mark.parametrize("base", ["v1", "1/v1", "session"])
def test_a_model_that_a_waiting_session_starts_from_stays(
    backend: Backend, api: TestClient, base: str
) -> None:
    sessions = Sessions(records_of(backend))
    made = sessions.request(
        OTHER, controls=["cells"], trigger=Trigger.PERSON, parameters=TrainingParameters()
    )
    lease = sessions.claim(made.id, owner="trainer", lease_s=60)
    assert lease is not None
    sessions.finish(lease, SessionState.COMPLETED, message="", version="v1")
    backend.setup("5.6")
    trained(backend, "v1", project=OTHER, session_id=made.id)
    waiting = sessions.request(
        PROJECT,
        controls=["cells"],
        trigger=Trigger.PERSON,
        parameters=TrainingParameters(),
        base={"v1": "v1", "1/v1": "5/v1", "session": made.id}[base],
    )

    sentence = problem(api.delete(f"{MODELS}/v1"), 409, "request.conflict")
    sessions.request_stop(waiting.id)

    assert f"session {waiting.id}, which is queued, starts from it" in sentence
    assert api.delete(f"{MODELS}/v1").status_code == 204


def test_a_model_that_a_session_is_restarted_from_stays(backend: Backend, api: TestClient) -> None:
    sessions = Sessions(records_of(backend))
    made = sessions.request(
        PROJECT, controls=["cells"], trigger=Trigger.PERSON, parameters=TrainingParameters()
    )
    lease = sessions.claim(made.id, owner="trainer", lease_s=60)
    assert lease is not None
    sessions.finish(lease, SessionState.COMPLETED, message="", version="v1")
    trained(backend, "v1", session_id=made.id)
    sessions.request(
        PROJECT,
        controls=["cells"],
        trigger=Trigger.PERSON,
        parameters=TrainingParameters(),
        restarted_from=made.id,
    )

    assert "starts from it" in problem(api.delete(f"{MODELS}/v1"), 409, "request.conflict")


# Files


def test_weights_are_sent_whole_with_their_hash(
    backend: Backend, api: TestClient, tmp_path: Path
) -> None:
    in_folder(backend, tmp_path, "v1")
    (shipped,) = built_in_networks()

    answer = api.get(f"{MODELS}/v1/weights")
    own = api.get(f"{MODELS}/nuclei-1/weights")

    assert answer.content == b"v1" * 1000
    assert answer.headers["x-checksum-sha256"] == "c" * 64
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "v1.safetensors" in answer.headers["content-disposition"]
    assert own.content == shipped.path.read_bytes()
    assert own.headers["x-checksum-sha256"] == shipped.sha256


def test_cellpose_s_weights_are_hashed_when_they_are_sent(
    backend: Backend, api: TestClient
) -> None:
    folder = backend.own.model_desk.cellpose_dir
    folder.mkdir()
    (folder / "cpsam").write_bytes(b"weights")

    answer = api.get(f"{MODELS}/cpsam/weights")

    assert answer.headers["x-checksum-sha256"].startswith("9a129038")
    assert "cpsam.pt" in answer.headers["content-disposition"]


def test_weights_that_are_elsewhere_are_404(backend: Backend, api: TestClient) -> None:
    trained(backend, "v1")

    trained_one = problem(api.get(f"{MODELS}/v1/weights"), 404, "request.not_found")
    published = problem(api.get(f"{MODELS}/cpsam/weights"), 404, "request.not_found")

    assert "not on the machine" in trained_one
    assert "models fetch cpsam" in published


def test_pictures_of_a_model_that_learned_classes_are_shown(
    backend: Backend, api: TestClient, tmp_path: Path
) -> None:
    folder = tmp_path / "classes-1"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"weights")
    (folder / "embedding.png").write_bytes(b"picture")
    named = ["embedding.png", "../../secret.png", "gone.png", 7]
    (folder / "manifest.json").write_text(json.dumps({"pictures": named}))
    component = Component(
        name="classes-1",
        architecture="classifier",
        sha256="c" * 64,
        path=str(folder / "weights.safetensors"),
        licence="CC0-1.0",
    )
    trained(backend, "classes-1", component=component)
    trained(backend, "v1")

    listed = api.get(f"{MODELS}/classes-1/pictures")
    picture = api.get(f"{MODELS}/classes-1/pictures/embedding.png")

    assert listed.json() == {"items": ["embedding.png"]}
    assert (picture.content, picture.headers["content-type"]) == (b"picture", "image/png")
    for path in ("classes-1/pictures/weights.safetensors", "v1/pictures", "none/pictures"):
        problem(api.get(f"{MODELS}/{path}"), 404, "request.not_found")
    problem(api.get(f"{MODELS}/nuclei-1/pictures"), 404, "request.not_found")


def test_what_was_trained_for_classes_serves_its_own_project_only(
    backend: Backend, api: TestClient
) -> None:
    backend.setup("5.6")
    classes = Component(
        name="classes-1", architecture="classifier", sha256="c" * 64, path="/x", licence="CC0-1.0"
    )
    trained(backend, "classes-1", component=classes, controls=("kind",))

    answer = api.post(f"{MODELS}/classes-1/activate", json={"project": 5})

    assert "classes of its own" in problem(answer, 409, "request.conflict")
