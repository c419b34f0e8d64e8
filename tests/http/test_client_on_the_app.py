"""Our client on our own web application, in one process: what one sends, the other understands."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from ml_backend.callers import Role
from ml_backend.client import Client, EventKind, Retries
from ml_backend.client.arrays import encode_npy_text
from ml_backend.client.in_process import InProcessTransport
from ml_backend.errors import (
    BackendError,
    BadRequest,
    Conflict,
    EngineUnavailable,
    Forbidden,
    IdempotencyKeyReused,
    NotFound,
    Unauthorized,
)
from ml_backend.learning import ActivationState, EpochPoint, SessionState
from ml_backend.store.database import Database
from ml_backend.store.sessions import Sessions
from ml_backend.store.tokens import Tokens
from tests.fakes import FakeEngineAnswer
from tests.http.conftest import Backend, MakeBackend
from tests.http.test_api import claimed, rows_of
from tests.http.test_models_api import in_folder, trained

ONCE = Retries(times=0)
MakeClient = Callable[..., Client]


class Noting(httpx.BaseTransport):
    """Passes requests on and notes them."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner
        self.asked: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Pass a request on."""
        self.asked.append(f"{request.method} {request.url.path}")
        return self._inner.handle_request(request)


@pytest.fixture
def backend(make_backend: MakeBackend, tmp_path: Path) -> Backend:
    """Return an application that a project is connected to, with a folder of images."""
    (tmp_path / "data" / "nuclei").mkdir(parents=True)
    backend = make_backend()
    assert backend.setup("1.2").status_code == 200
    return backend


@pytest.fixture
def transport(backend: Backend) -> Iterator[Noting]:
    """Yield the way to the application, which notes what is asked."""
    inner = InProcessTransport(backend.app)
    yield Noting(inner)
    inner.close()


@pytest.fixture
def make_client(transport: Noting) -> MakeClient:
    """Return what makes clients of the application."""

    def make(token: str | None = None, **options: Any) -> Client:
        return Client("http://localhost:9090", token, transport=transport, retries=ONCE, **options)

    return make


@pytest.fixture
def client(make_client: MakeClient) -> Client:
    """Return a client on this machine, without a token."""
    return make_client()


@pytest.fixture
def sessions(backend: Backend) -> Sessions:
    """Return the rows that a trainer writes."""
    return rows_of(backend)


def test_the_caller_and_the_load_are_told(client: Client) -> None:
    load = client.load()

    assert client.whoami().role is Role.ADMIN
    assert (load.load, load.queued, load.running) == (0.0, 0, 0)
    assert "ml_backend_requests" in client.metrics()


def test_tokens_have_their_roles(backend: Backend, make_client: MakeClient) -> None:
    database: Database = backend.own.projects._database
    secrets = {role: Tokens(database).create(role.value, role)[1] for role in Role}
    looking, training = make_client(secrets[Role.PREDICT]), make_client(secrets[Role.TRAIN])

    assert (looking.whoami().name, training.whoami().role) == ("predict", Role.TRAIN)
    with pytest.raises(Forbidden, match="needs train"):
        looking.sessions.start(project=1)
    (session,) = training.sessions.start(project=1)
    assert session.owner == "train"
    with pytest.raises(Forbidden, match="needs admin"):
        training.models.rollback(1)
    with pytest.raises(Unauthorized, match="wrong or revoked"):
        make_client("mlb_nobody_secret").load()
    with pytest.raises(Unauthorized, match="Nothing says who asks"):
        make_client().load()


def test_a_training_is_started_followed_and_deleted(
    client: Client, sessions: Sessions, tmp_path: Path
) -> None:
    (session,) = client.sessions.start(
        dataset=tmp_path / "data" / "nuclei",
        layout={"train_images": "i/*.tif", "train_annotations": "m/*.tif", "test_images": None},
        n_epochs=2,
        enable_clahe=True,
        label="liver",
    )
    assert client.sessions.curves(session.id) == ()
    assert client.sessions.debug(session.id).queue_position == 1
    stored = sessions.get(session.id)
    assert stored is not None
    lease = claimed(sessions, stored)
    with pytest.raises(Conflict):
        client.sessions.delete(session.id)
    for epoch in (1, 2):
        sessions.point(
            lease, EpochPoint(epoch=epoch, step=epoch, loss=0.5 / epoch, learning_rate=1e-4)
        )
    sessions.finish(lease, SessionState.STOPPED, message="It was stopped.")

    heard = []
    ended = client.sessions.wait(session.id[:8], on_event=heard.append)

    assert (session.dataset, session.label, session.project) == ("nuclei", "liver", None)
    assert session.parameters["n_epochs"] == 2
    assert session.parameters["enable_clahe"] is True
    assert (ended.state, ended.message, ended.has_ended) == ("stopped", "It was stopped.", True)
    points = tuple(event.point for event in heard if event.point is not None)
    assert [point.loss for point in points] == [0.5, 0.25]
    assert heard[-1].kind is EventKind.END
    assert client.sessions.curves(session.id) == points
    assert client.sessions.picture(session.id, tmp_path).read_bytes().startswith(b"\x89PNG")
    assert list(client.sessions.events(session.id, after=heard[-1].id)) == []
    again = client.sessions.restart(session.id, n_epochs=5)
    assert (again.restarted_from, again.parameters["n_epochs"]) == (session.id, 5)
    assert client.sessions.stop(again.id).state is SessionState.STOPPED
    assert client.sessions.resume(session.id).state is SessionState.QUEUED
    client.sessions.stop(session.id)
    for one in (session, again):
        client.sessions.delete(one.id)
    with pytest.raises(NotFound, match="There is no session"):
        client.sessions.get(session.id)


def test_sessions_are_found_page_by_page(client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "nuclei"
    begun = [
        client.sessions.start(dataset=folder, label=label)[0].id for label in ("a", "b", "a", "c")
    ]
    stopped = client.sessions.stop(begun[0]).id

    def found(**words: Any) -> list[str]:
        return [one.id for one in client.sessions.find(**words)]

    assert found(page_size=3) == begun[::-1]
    assert found(page_size=1, labels=["a", "c"]) == [begun[3], begun[2], begun[0]]
    assert found(status_types=["stopped", "failed"]) == [stopped]
    assert found(datasets=["nuclei"], status_types=["queued"]) == begun[:0:-1]
    assert found(project=1) == found(owner="nobody") == []
    (dataset,) = client.datasets.find()
    assert (dataset.name, dataset.sessions, dataset.models) == ("nuclei", 4, 0)
    assert list(client.datasets.models("nuclei")) == []


def test_one_key_starts_once(client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "nuclei"
    first = client.sessions.start(dataset=folder, idempotency_key="k")
    second = client.sessions.start(dataset=folder, idempotency_key="k")

    assert first == second
    assert len(list(client.sessions.find())) == 1
    with pytest.raises(IdempotencyKeyReused):
        client.sessions.start(dataset=folder, label="another", idempotency_key="k")


def test_every_option_of_trainings_is_known_to_the_server(client: Client, tmp_path: Path) -> None:
    known = {parameter.name: parameter for parameter in client.training_parameters()}
    options = {
        "n_epochs": 3,
        "n_samples": 8,
        "learning_rate": 0.001,
        "weight_decay": 0.1,
        "min_train_masks": 2,
        "validation_interval": 2,
        "enable_clahe": False,
        "rescale": True,
        "batch_size": 2,
        "crop": 128,
        "max_minutes": 3.5,
        "patience": 4,
        "lora_rank": 0,
        "seed": 7,
    }

    (session,) = client.sessions.start(dataset=tmp_path / "data" / "nuclei", **options)

    assert set(options) | {"from_active"} == set(known)
    assert {name: session.parameters[name] for name in options} == options
    assert known["n_epochs"].reference_default == 10


def test_models_are_looked_at_and_changed(backend: Backend, client: Client, tmp_path: Path) -> None:
    version = in_folder(backend, tmp_path, "v1")
    trained(backend, "v2", created_at=2.0)

    listed = {model.name: model for model in client.models.find(page_size=2)}
    model = client.models.get("v1", owner=1)

    assert {"nuclei-1", "v1", "v2"} <= set(listed)
    assert listed["nuclei-1"].kind == "built_in"
    assert model.project is not None
    assert (model.project.id, model.lineage[-1], model.kind) == (1, "cells-1", "candidate")
    activation = client.models.activate("v1", controls=["cells"])
    assert activation.state is ActivationState.REQUESTED
    assert [one.id for one in client.models.activations(project=1)] == [activation.id]
    with pytest.raises(Conflict):
        client.models.delete("v1")
    assert client.models.archive("v2").kind == "archived"
    client.models.delete("v2")
    with pytest.raises(NotFound):
        client.models.get("v2")
    with pytest.raises(BackendError):
        client.models.rollback(1, to_base=True)
    assert version.name == "v1"


def test_weights_are_downloaded(backend: Backend, client: Client, tmp_path: Path) -> None:
    shipped = client.models.get("nuclei-1")

    written = client.models.download("nuclei-1", tmp_path)

    import hashlib

    assert hashlib.sha256(written.read_bytes()).hexdigest() == shipped.sha256


def test_images_go_to_the_engine_and_masks_come_back(
    backend: Backend, client: Client, tmp_path: Path
) -> None:
    masks = np.array([[0, 1], [2, 2]], np.uint16)
    item = {"name": "a.tif", "masks": encode_npy_text(masks), "scores": [0.5, 0.25]}
    body = orjson.dumps({"items": [item], "model": {"name": "nuclei-1"}})
    headers = {"content-type": "application/json"}
    file = tmp_path / "a.tif"
    file.write_bytes(b"pixels")

    for image in (np.eye(2), file, "https://images.example/a.tif"):
        backend.engine.asked_answers["/infer"] = FakeEngineAnswer(body=[body], headers=headers)
        (found,) = client.infer(image, diameter=12)
        assert np.array_equal(found.masks, masks)
        assert found.count == 2

    kinds = [asked[1]["Content-Type"].partition(";")[0] for asked in backend.engine.asked]
    assert kinds == ["application/json", "multipart/form-data", "application/json"]
    assert b"pixels" in backend.engine.asked[1][2]


def test_an_engine_that_is_not_there_is_said(backend: Backend, client: Client) -> None:
    backend.engine.failures.append(EngineUnavailable("The engine is starting."))

    with pytest.raises(EngineUnavailable, match="is starting"):
        client.infer(np.eye(2))


def test_a_model_is_exported_by_the_engine(
    backend: Backend, client: Client, tmp_path: Path
) -> None:
    name = {"content-disposition": 'attachment; filename="nuclei.zip"'}
    backend.engine.asked_answers["/export"] = FakeEngineAnswer(body=[b"P", b"K"], headers=name)

    written = client.models.export(
        "nuclei-1",
        tmp_path,
        authors=[{"name": "A. Author"}],
        uploader={"name": "A. Author", "email": "author@example.org"},
        citation=[{"text": "A paper", "url": "https://example.org/paper"}],
        sample=np.eye(4),
    )

    assert (written.name, written.read_bytes()) == ("nuclei.zip", b"PK")
    with pytest.raises(BadRequest, match="authors"):
        client.models.export("nuclei-1", tmp_path)


def test_every_route_of_the_api_has_a_method(
    backend: Backend, client: Client, transport: Noting, tmp_path: Path
) -> None:
    (tmp_path / "file.pt").write_bytes(b"weights")
    sessions, models, projects = client.sessions, client.models, client.projects
    calls: list[Callable[[], object]] = [
        *(client.load, client.whoami, client.training_parameters),
        lambda: client.infer(np.eye(2)),
        lambda: sessions.start(project=1),
        lambda: list(sessions.find()),
        *(lambda call=call: call("ab") for call in (sessions.get, sessions.stop, sessions.resume)),
        *(lambda call=call: call("ab") for call in (sessions.delete, sessions.debug)),
        *(lambda call=call: call("ab") for call in (sessions.manifest, sessions.curves)),
        lambda: sessions.restart("ab"),
        lambda: sessions.picture("ab", tmp_path),
        lambda: list(sessions.events("ab")),
        lambda: list(client.datasets.find()),
        lambda: list(client.datasets.models("d")),
        lambda: list(models.find()),
        *(lambda call=call: call("m") for call in (models.get, models.activate, models.archive)),
        lambda: models.delete("m"),
        lambda: models.rollback(1),
        lambda: list(models.activations()),
        lambda: models.download("m", tmp_path),
        lambda: models.upload(tmp_path / "file.pt"),
        lambda: models.pictures("m", tmp_path),
        lambda: models.export("m", tmp_path),
        lambda: list(projects.find()),
        lambda: projects.export(1, tmp_path),
    ]
    for call in calls:
        with suppress(BackendError):
            call()
    routes = {
        f"{method.upper()} {path}"
        for path, methods in backend.app.openapi()["paths"].items()
        for method in methods
        if path.startswith("/api/v1/")
    }
    missed = {
        route
        for route in routes
        if not any(re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route), one) for one in transport.asked)
    }

    # `models.pictures` asks for each picture of a list that is empty here
    assert missed == {"GET /api/v1/models/{name}/pictures/{file}"}
