"""The web application on real records, with a fake engine behind it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog
from fastapi import FastAPI
from fastapi.testclient import TestClient

from ml_backend.bootstrap.models import open_model_desk, open_version_desk
from ml_backend.bootstrap.sessions import session_debugger, session_starter, training_desk
from ml_backend.domain import Component, DefaultModels
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.settings import Settings
from ml_backend.store.census import CensusTaker
from ml_backend.store.components import Components
from ml_backend.store.database import Database
from ml_backend.store.datasets import Datasets
from ml_backend.store.events import Events
from ml_backend.store.idempotency import IdempotencyKeys
from ml_backend.store.projects import Projects
from ml_backend.store.readiness import look_at_records
from ml_backend.store.releases import Releases
from ml_backend.store.tokens import Tokens
from ml_backend.store.versions import Versions
from ml_backend.web.app import create_app
from ml_backend.web.dependencies import WebDependencies
from tests.fakes import FakeEngine

PAYLOADS = Path(__file__).parent / "payloads"
COMPONENT = Component(
    name="cells-1",
    architecture="residual-unet",
    sha256="0" * 64,
    path="/models/cells-1.safetensors",
    licence="CC0-1.0",
)
CONFIG = (
    '<View><Image name="image" value="$image"/><PolygonLabels name="cells" toName="image">'
    '<Label value="Cell"/></PolygonLabels></View>'
)


def recorded(name: str) -> dict[str, Any]:
    """Return the request of a recorded exchange."""
    exchange: dict[str, Any] = orjson.loads((PAYLOADS / f"{name}.json").read_bytes())
    request: dict[str, Any] = exchange["request"]
    return request


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A web application under test and what it is made of."""

    app: FastAPI
    client: TestClient
    own: WebDependencies
    engine: FakeEngine

    def start_engine(self) -> None:
        """Record what an engine records at its start."""
        self.own.components.record(self.own.models.model, COMPONENT, device="cpu")
        self.own.releases.record_default(COMPONENT, revision=self.own.revision)

    def setup(self, project: str = "1.2", config: str = CONFIG) -> Any:
        """Send /setup as Label Studio does and return the answer."""
        body = {
            "project": project,
            "schema": config,
            "hostname": "http://ls.example",
            "access_token": "token",
            "extra_params": None,
        }
        return self.client.post("/setup", json=body)

    def predict(self, count: int = 1, project: str = "1.2", **more: Any) -> Any:
        """Send /predict for `count` tasks and return the answer."""
        tasks = [{"id": n, "data": {"image": f"/{n}.png"}, "project": 1} for n in range(count)]
        body = {"tasks": tasks, "project": project, "label_config": CONFIG, **more}
        return self.client.post("/predict", json=body)


def models_of(folder: Path) -> Settings:
    """Return settings with a folder of their own for Cellpose's weights."""
    return Settings(model="auto", cellpose_local_models_path=folder / "cellpose")


MakeBackend = Callable[..., Backend]
Logged = list[MutableMapping[str, Any]]


@pytest.fixture(scope="session")
def empty_records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of migrated, empty records to copy: migrating anew would take longer."""
    path = tmp_path_factory.mktemp("records") / "empty.sqlite3"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.close()
    return path


@pytest.fixture
def make_backend(tmp_path: Path, empty_records: Path) -> Iterator[MakeBackend]:
    """Yield a maker of applications on the same records."""
    databases = []
    records = shutil.copy(empty_records, tmp_path / "records.sqlite3")

    def make(*, started: bool = True, **settings: Any) -> Backend:
        database = Database(f"sqlite:///{records}")
        databases.append(database)
        engine = settings.pop("engine", FakeEngine())
        own = WebDependencies(
            **{
                "models": DefaultModels(),
                "revision": "1",
                "program_version": "0.1.0",
                "predict_budget_s": 5.0,
                "max_request_bytes": 1_000_000,
                "infer_budget_s": 30.0,
                "max_model_bytes": 2_000_000,
                "uploads_folder": tmp_path / "incoming",
                "label_studio_url": None,
                "parse_label_config": parse_label_config,
                "projects": Projects(database),
                "components": Components(database),
                "releases": Releases(database),
                "versions": Versions(database),
                "version_desk": open_version_desk(Settings(model="auto"), database),
                "model_desk": open_model_desk(models_of(tmp_path), database),
                "training": training_desk(database),
                "starter": session_starter(
                    Settings(model="auto", data_roots=str(tmp_path / "data")), database
                ),
                "debugger": session_debugger(database),
                "datasets": Datasets(database),
                "events": Events(database),
                "tokens": Tokens(database),
                "idempotency": IdempotencyKeys(database),
                "records": partial(look_at_records, database),
                "census": CensusTaker(database),
                "engine": engine,
                "poll_s": 0.02,
                **settings,
            }
        )
        app = create_app(own)
        client = TestClient(app, raise_server_exceptions=False, follow_redirects=False)
        backend = Backend(app=app, client=client, own=own, engine=engine)
        if started:
            backend.start_engine()
        return backend

    yield make
    for database in databases:
        database.close()


@pytest.fixture
def logged() -> Iterator[Logged]:
    """Yield the lines that are logged, as the processes log them: with what is bound to them."""
    capture = structlog.testing.LogCapture()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, capture])
    yield capture.entries
    structlog.reset_defaults()


@pytest.fixture
def backend(make_backend: MakeBackend) -> Backend:
    """Return an application whose engine has started."""
    return make_backend()
