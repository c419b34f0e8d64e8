"""POST /api/v1/models: a form through the web application into an engine's half, and back."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient
from safetensors.torch import save_file

from ml_backend.bootstrap.models import open_model_names
from ml_backend.domain import Component
from ml_backend.engines.networks import load_network
from ml_backend.engines.residual_unet import ResidualUNet, ResidualUNetConfig
from ml_backend.errors import EngineUnavailable, OutOfMemory
from ml_backend.learning import UPLOADS
from ml_backend.processes.engine import EngineApp, create_engine_app
from ml_backend.processes.engine_metrics import EngineMetrics
from ml_backend.processes.engine_uploads import uploads_router
from ml_backend.service.uploads import Uploads
from ml_backend.store.database import Database
from ml_backend.store.versions import Versions
from ml_backend.web.engine_client import HttpEngineClient
from tests.fakes import FakeEngine
from tests.http.conftest import Backend, MakeBackend
from tests.http.test_api import local, problem

pytestmark = pytest.mark.unhurried

CONFIG = ResidualUNetConfig(
    channels=(4, 8), encoder_blocks=(0, 1), decoder_blocks=(1,), diam_mean=20.0
)
MODELS = "/api/v1/models"
MAX_BYTES = 300_000


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    """Return the file of a small network."""
    torch.manual_seed(1)
    path = tmp_path / "small.safetensors"
    metadata = {"config": json.dumps(CONFIG.to_json())}
    save_file(ResidualUNet(CONFIG).state_dict(), path, metadata=metadata)
    return path.read_bytes()


class Site:
    """A web application, and an engine of its own whose device a test can break."""

    def __init__(self, make_backend: MakeBackend, folder: Path) -> None:
        self.fault: Exception | None = None
        self.folder = folder
        self.backend: Backend = make_backend(max_model_bytes=MAX_BYTES)
        database: Database = self.backend.own.projects._database
        uploads = Uploads(
            models=folder / "models",
            versions=Versions(database),
            names=open_model_names(database),
            prove=self._prove,
            cellpose_dir=folder / "cellpose",
            max_bytes=MAX_BYTES,
        )
        engine = httpx.ASGITransport(app=engine_app(uploads))
        self.backend = make_backend(
            max_model_bytes=MAX_BYTES,
            engine=HttpEngineClient("http://engine", None, transport=engine),
        )
        self.api = local(self.backend)

    def _prove(self, component: Component) -> None:
        if self.fault is not None:
            raise self.fault
        load_network(component, torch.device("cpu"))

    def post(self, content: bytes, file_name: str = "My cells.safetensors", **said: str) -> Any:
        """Upload a file."""
        return self.api.post(MODELS, files={"file": (file_name, content)}, data=said)

    def left(self) -> list[Path]:
        """Return the files that lie around."""
        folders = [self.folder / name for name in ("models", "incoming")]
        return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


def engine_app(uploads: Uploads) -> FastAPI:
    """Return an engine that takes uploads and can do nothing else."""

    class Idle:
        """Predicts nothing."""

        def predict(self, request: Any) -> list[Any]:
            return []

        def depth(self) -> int:
            return 0

    def unknown(*_: Any) -> Any:
        raise NotImplementedError

    engine = EngineApp(
        Idle(),
        find_project=unknown,
        find_release=unknown,
        access=unknown,
        device="cpu",
        slots=1,
        secret=None,
        metrics=EngineMetrics("test"),
    )
    return create_engine_app(engine, routers=[uploads_router(uploads, max_bytes=MAX_BYTES)])


@pytest.fixture
def site(make_backend: MakeBackend, tmp_path: Path) -> Site:
    return Site(make_backend, tmp_path)


def test_a_checkpoint_of_one_s_own_can_be_used_by_name(site: Site, weights: bytes) -> None:
    answer = site.post(
        weights, licence="CC-BY-4.0", description="Onions, as they are.", diameter="25.5"
    )

    model = answer.json()
    assert answer.status_code == 201, model
    assert answer.headers["location"] == model["url"] == f"{MODELS}/my-cells"
    assert (model["name"], model["kind"], model["licence"]) == ("my-cells", "uploaded", "CC-BY-4.0")
    assert (model["diameter"], model["available"]) == (25.5, True)
    assert (model["message"], model["lineage"]) == ("Onions, as they are.", [])
    assert site.api.get(f"{MODELS}?kind=uploaded").json()["items"] == [model]
    assert (
        site.api.get(f"{MODELS}/my-cells/weights").headers["x-checksum-sha256"] == (model["sha256"])
    )


def test_what_is_downloaded_can_be_uploaded_again(site: Site, weights: bytes) -> None:
    first = site.post(weights).json()
    again = site.api.get(f"{MODELS}/my-cells/weights").content

    second = site.post(again, name="again").json()

    assert (second["name"], second["sha256"]) == ("again", first["sha256"])


def test_the_fields_may_come_after_the_file(site: Site, weights: bytes) -> None:
    boundary = "----x"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.pt"\r\n\r\n',
        f'\r\n--{boundary}\r\ncontent-disposition: form-data; name="name"\r\n\r\nlater',
        f"\r\n--{boundary}--\r\n",
    ]
    body = parts[0].encode() + weights + parts[1].encode() + parts[2].encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}

    assert site.api.post(MODELS, content=body, headers=headers).json()["name"] == "later"


class _Evil:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self._path),))


def test_code_in_a_checkpoint_is_not_run(site: Site, tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"
    torch.save({"a": _Evil(trace)}, tmp_path / "evil.pt")

    for content in ((tmp_path / "evil.pt").read_bytes(), pickle.dumps(_Evil(trace))):
        problem(site.post(content, "evil.pt"), 422, "model.checkpoint")

    assert not trace.exists()
    assert site.left() == []


@pytest.mark.parametrize("kept", [0, 10, 200, -1])
def test_a_truncated_file_is_refused(site: Site, weights: bytes, kept: int) -> None:
    problem(site.post(weights[:kept]), 422, "model.checkpoint")

    assert site.left() == []
    assert site.api.get(f"{MODELS}?kind=uploaded").json()["items"] == []


def test_another_architecture_is_refused(site: Site, tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "other.safetensors")

    answer = site.post((tmp_path / "other.safetensors").read_bytes())

    assert "Cellpose 3 models cannot be used" in problem(answer, 422, "model.checkpoint")


def test_a_file_that_is_too_large_is_refused_by_both_halves(
    site: Site, make_backend: MakeBackend, weights: bytes
) -> None:
    large = weights + bytes(MAX_BYTES + 200_000)
    declared = site.post(large)
    lenient = make_backend(max_model_bytes=10 * MAX_BYTES, engine=site.backend.own.engine)
    by_engine = local(lenient).post(MODELS, files={"file": ("a.pt", large)})

    def pieces() -> Iterator[bytes]:  # of a length that nobody declares
        yield b"--x\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\n"
        for _ in range(10):
            yield bytes(100_000)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    undeclared = site.api.post(MODELS, content=pieces(), headers=headers)

    for answer in (declared, by_engine, undeclared):
        assert "MAX_MODEL_MB" in problem(answer, 413, "request.too_large")
    assert site.left() == []


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        ({"name": "../../up"}, 400, "request.invalid"),
        ({"name": "Big"}, 400, "request.invalid"),
        ({"name": "cpsam"}, 409, "request.conflict"),
        ({"name": "deadbeef"}, 400, "request.invalid"),
        ({"diameter": "wide"}, 400, "request.invalid"),
        ({"licence": "x" * 300}, 400, "request.invalid"),
        ({"description": "x" * 30_000}, 400, "request.invalid"),
    ],
)
def test_what_is_said_wrongly_is_refused(
    site: Site, weights: bytes, said: dict[str, str], status: int, code: str
) -> None:
    problem(site.post(weights, **said), status, code)

    assert site.left() == []


def test_a_name_is_given_once(site: Site, weights: bytes) -> None:
    assert site.post(weights).status_code == 201

    assert "choose another name" in problem(site.post(weights), 409, "request.conflict")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("", b""),
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=", b""),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"--x--\r\n"),
        ("multipart/form-data; boundary=x", b"no boundary at all"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\na"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nbroken off',
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\na\r\n' * 2
            + b"--x--\r\n",
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\na\r\n' * 30 + b"--x--\r\n",
        ),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\n" + b"A: " + b"b" * 10_000 + b"\r\n\r\na\r\n--x--\r\n",
        ),
    ],
)
def test_what_is_no_form_with_a_file_is_refused(site: Site, content_type: str, body: bytes) -> None:
    answer = site.api.post(MODELS, content=body, headers={"Content-Type": content_type})

    problem(answer, 400, "request.invalid")
    assert site.left() == []


def test_a_device_that_is_full_is_said(site: Site, weights: bytes) -> None:
    site.fault = OutOfMemory("cpu has no room for the network.")

    problem(site.post(weights), 503, "engine.memory")
    site.fault = None

    assert site.post(weights).status_code == 201


def test_without_an_engine_nothing_is_taken(make_backend: MakeBackend, weights: bytes) -> None:
    backend = make_backend(engine=FakeEngine(failures=[EngineUnavailable()]))

    answer = local(backend).post(MODELS, files={"file": ("a.safetensors", weights)})

    problem(answer, 503, "engine.unavailable")
    assert backend.own.versions.all(UPLOADS) == []


def test_a_folder_that_cannot_be_written_is_said(
    make_backend: MakeBackend, tmp_path: Path, weights: bytes
) -> None:
    (tmp_path / "a-file").write_bytes(b"")
    backend = make_backend(uploads_folder=tmp_path / "a-file" / "incoming")

    answer = local(backend).post(MODELS, files={"file": ("a.safetensors", weights)})

    assert "DATA_DIR" in problem(answer, 502, "engine.failed")


def test_a_stranger_is_refused_before_anything_is_read(site: Site, weights: bytes) -> None:
    stranger = TestClient(
        site.backend.app, base_url="http://127.0.0.1:9090", client=("192.168.1.7", 50000)
    )

    answer = stranger.post(MODELS, files={"file": ("a.safetensors", weights)})

    problem(answer, 403, "request.forbidden")
    assert site.left() == []
