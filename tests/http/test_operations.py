"""whoami and load, liveness and readiness, and what Prometheus gets."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from ml_backend.callers import Role
from ml_backend.domain import ProjectKey
from ml_backend.errors import StoreError
from ml_backend.learning import TrainingParameters, Trigger
from ml_backend.processes.engine_metrics import EngineMetrics, Reading
from ml_backend.store.census import Census, CensusTaker
from ml_backend.store.database import Database
from ml_backend.store.readiness import RecordsState
from ml_backend.store.sessions import Sessions
from ml_backend.store.trainers import Trainers
from ml_backend.web.app import create_app
from ml_backend.web.metrics import CONTENT_TYPE
from ml_backend.web.readiness import ReadinessCheck, readiness_router
from tests.fakes import FakeEngine
from tests.http.conftest import Backend, MakeBackend

PROJECT = ProjectKey(origin="http://ls.example", project_id=1, created_at=2)
HERE = ("127.0.0.1", 50000)


def records_of(backend: Backend) -> Database:
    """Return an application's records."""
    database: Database = backend.own.projects._database
    return database


def api(backend: Backend) -> TestClient:
    """Return a caller on this machine."""
    return TestClient(
        backend.app,
        base_url="http://127.0.0.1:9090",
        client=HERE,
        raise_server_exceptions=False,
    )


def engine_text() -> bytes:
    """Return what an engine that has worked a little answers a scrape."""
    metrics = EngineMetrics("host:1")
    metrics.ran(tiles=8, images=2, seconds=0.2)
    metrics.watch([Reading(name="ml_backend_engine_depth", text="x", read=lambda: {(): 3.0})])
    metrics.count_request("/predict", 200, 1.0)
    return metrics.render()


def families(text: str) -> dict[str, Any]:
    """Return the families of a text that Prometheus can read, by name."""
    found = list(text_string_to_metric_families(text))
    names = [family.name for family in found]
    assert len(set(names)) == len(names), "a family twice"
    assert all(family.documentation for family in found)
    assert all(family.type != "unknown" for family in found)
    return {family.name: family for family in found}


def values(family: Any, label: str | None = None) -> dict[str, float]:
    """Return a family's values by one of its labels."""
    return {
        sample.labels.get(label, "") if label else "": sample.value for sample in family.samples
    }


# The caller, and how busy it all is


def test_a_caller_learns_who_it_is(backend: Backend) -> None:
    before = api(backend).get("/api/v1/whoami").json()
    _, text = backend.own.tokens.create("anna", Role.TRAIN)

    headers = {"Authorization": f"Bearer {text}"}

    assert before == {"name": None, "role": "admin"}
    assert api(backend).get("/api/v1/whoami", headers=headers).json() == {
        "name": "anna",
        "role": "train",
    }


@pytest.mark.parametrize(
    ("trainers", "held", "health", "load"),
    [
        (1, 0, b'{"device":"cpu","depth":0,"slots":2}', 0.0),
        (1, 1, b'{"device":"cpu","depth":0,"slots":2}', 0.5),
        (2, 1, b'{"device":"cuda:0","depth":9,"slots":8,"more":1}', 0.75),
        (0, 0, b'{"device":"cpu","depth":0,"slots":2}', 0.5),
        (1, 1, None, 1.0),
        (1, 0, b"<html>", 0.0),
    ],
)
def test_load_is_the_mean_of_trainers_and_engine(
    backend: Backend, trainers: int, held: int, health: bytes | None, load: float
) -> None:
    database = records_of(backend)
    sessions = Sessions(database)
    ids = [
        sessions.request(
            PROJECT, controls=[control], trigger=Trigger.PERSON, parameters=TrainingParameters()
        ).id
        for control in "ab"
    ]
    for session_id in ids[:held]:
        assert sessions.claim(session_id, owner="t0", lease_s=60) is not None
    for number in range(trainers):
        Trainers(database).seen(f"t{number}")
    backend.engine.looks = {} if health is None else {"/health": health}

    answer = api(backend).get("/api/v1/load").json()

    engine = answer.pop("engine")
    assert answer == {"load": load, "queued": 2 - held, "running": held, "slots": trainers}
    if health is None or not health.startswith(b"{"):
        assert engine is None
    else:
        assert set(engine) == {"device", "depth", "slots"}


def test_an_engine_that_hangs_does_not_hold_the_load_up(make_backend: MakeBackend) -> None:
    backend = make_backend(engine=FakeEngine(delay_s=30.0))
    started = time.monotonic()

    answer = api(backend).get("/api/v1/load")

    assert (answer.status_code, answer.json()["engine"]) == (200, None)
    assert time.monotonic() - started < 5


# Liveness and readiness


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_whoever_watches_over_the_process_needs_no_credentials(
    make_backend: MakeBackend, path: str
) -> None:
    backend = make_backend(basic_auth=("user", "password"))
    backend.own.tokens.create("anna", Role.PREDICT)

    assert backend.client.get(path).status_code == 200


def test_a_process_that_answers_is_alive_whatever_else_is_the_matter(
    make_backend: MakeBackend,
) -> None:
    def away() -> RecordsState:
        raise StoreError("away")

    backend = make_backend(started=False, records=away, engine=FakeEngine(looks={}))

    assert backend.client.get("/livez").json() == {"status": "alive"}
    assert backend.client.get("/readyz").status_code == 503


def test_ready_is_when_records_and_release_are_there(make_backend: MakeBackend) -> None:
    backend = make_backend(started=False)
    before = backend.client.get("/readyz")
    backend.start_engine()
    after = backend.client.get("/readyz")

    assert (before.status_code, before.json()) == (
        503,
        {
            "status": "not ready",
            "checks": {"records": "ok", "release": "missing", "engine": "ok"},
        },
    )
    assert (after.status_code, after.json()) == (
        200,
        {"status": "ready", "checks": {"records": "ok", "release": "ok", "engine": "ok"}},
    )


def test_a_model_that_cannot_be_served_is_not_ready(backend: Backend) -> None:
    backend.own.components.record_problem(backend.own.models.model, "There is no such file.")

    answer = backend.client.get("/readyz")

    assert (answer.status_code, answer.json()["checks"]["release"]) == (503, "unusable")


@pytest.mark.parametrize("state", [state for state in RecordsState if state != "ok"])
def test_records_that_cannot_be_worked_with_are_not_ready(
    make_backend: MakeBackend, state: RecordsState
) -> None:
    backend = make_backend(records=lambda: state)

    answer = backend.client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["checks"]["records"] == state.value


def test_an_engine_that_is_away_is_told_and_changes_nothing(make_backend: MakeBackend) -> None:
    for engine in (FakeEngine(looks={}), FakeEngine(delay_s=30.0)):
        started = time.monotonic()
        answer = make_backend(engine=engine).client.get("/readyz")

        assert (answer.status_code, answer.json()["checks"]["engine"]) == (200, "away")
        assert time.monotonic() - started < 3


def test_records_that_hang_do_not_hold_a_probe_up_and_take_one_thread(
    make_backend: MakeBackend,
) -> None:
    asked = []

    def slowly() -> RecordsState:
        asked.append(1)
        time.sleep(2.0)
        return RecordsState.READY

    own = make_backend(records=slowly).own
    app = create_app(own)
    app.router.routes.clear()
    check = ReadinessCheck(own, records_within_s=0.1)

    @app.get("/probe")
    async def probe() -> dict[str, Any]:
        found = await check.look()
        return {"ready": found.is_ready, **found.checks}

    started = time.monotonic()
    with TestClient(app) as client:
        answers = [client.get("/probe").json() for _ in range(3)]
        took_s = time.monotonic() - started

    assert answers == [{"ready": False, "records": "away", "engine": "ok"}] * 3
    assert took_s < 1.5
    assert len(asked) == 1


def test_probes_tell_nothing_of_where_things_are(make_backend: MakeBackend) -> None:
    def away() -> RecordsState:
        raise StoreError("The records at postgresql://secret-host/x cannot be read.")

    answer = make_backend(records=away).client.get("/readyz")

    assert "secret-host" not in answer.text
    assert len(readiness_router(make_backend().own).routes) == 2


# Prometheus


def test_a_scrape_holds_requests_records_and_engine(backend: Backend) -> None:
    backend.engine.looks["/metrics"] = engine_text()
    Sessions(records_of(backend)).request(
        PROJECT, controls=["a"], trigger=Trigger.PERSON, parameters=TrainingParameters()
    )
    Trainers(records_of(backend)).seen("t")
    api(backend).get("/api/v1/sessions/nothing")

    answer = backend.client.get("/metrics")

    found = families(answer.text)
    assert answer.headers["content-type"] == CONTENT_TYPE
    assert values(found["ml_backend_engine_up"]) == {"": 1.0}
    assert values(found["ml_backend_records_up"]) == {"": 1.0}
    assert values(found["ml_backend_training_queue_length"]) == {"": 1.0}
    assert values(found["ml_backend_trainers"]) == {"": 1.0}
    assert values(found["ml_backend_sessions"], "state") == {
        "queued": 1.0, "running": 0.0, "completed": 0.0, "failed": 0.0, "stopped": 0.0,
    }  # fmt: skip
    assert set(values(found["ml_backend_activations"], "state")) == {
        "requested", "warmed", "done", "failed",
    }  # fmt: skip
    assert values(found["ml_backend_versions"], "state")["published"] == 0.0
    assert values(found["ml_backend_kept_prediction_bytes"]) == {"": 0.0}
    assert values(found["ml_backend_engine_depth"], "engine") == {"host:1": 3.0}
    assert found["ml_backend_engine_batch_seconds"].type == "histogram"
    routes = values(found["ml_backend_requests"], "route")
    assert "/api/v1/sessions/{session_id}" in routes
    assert found["ml_backend_request_seconds"].type == "histogram"


@pytest.mark.parametrize(
    "text",
    [
        None,
        b"<html>Bad gateway</html>\n",
        b"\xff\xfe",
        b"ml_backend_engine_depth 3.0",  # without an end, more may be missing
        b"# TYPE ml_backend_requests counter\nml_backend_requests_total 3.0\n",  # ours
        b"ml_backend_engine_depth{engine= 3.0\n",
    ],
    ids=repr,
)
def test_without_a_scrape_of_the_engine_the_rest_is_there(
    backend: Backend, text: bytes | None
) -> None:
    if text is not None:
        backend.engine.looks["/metrics"] = text

    found = families(backend.client.get("/metrics").text)

    assert values(found["ml_backend_engine_up"]) == {"": 0.0}
    assert not any(name.startswith("ml_backend_engine_") for name in found.keys() - {
        "ml_backend_engine_up"
    })  # fmt: skip
    assert "ml_backend_requests" in found or "ml_backend_sessions" in found


def test_without_records_the_rest_is_there(make_backend: MakeBackend) -> None:
    class Away(CensusTaker):
        def take(self) -> Census:
            raise StoreError("away")

    records = records_of(make_backend())
    backend = make_backend(census=Away(records), engine=FakeEngine())
    backend.client.get("/health")

    found = families(backend.client.get("/metrics").text)

    assert values(found["ml_backend_records_up"]) == {"": 0.0}
    assert "ml_backend_sessions" not in found
    assert "ml_backend_requests" in found


def test_an_engine_that_hangs_does_not_hold_a_scrape_up(make_backend: MakeBackend) -> None:
    backend = make_backend(engine=FakeEngine(delay_s=30.0, looks={"/metrics": engine_text()}))
    started = time.monotonic()

    found: Mapping[str, Any] = families(backend.client.get("/metrics").text)

    assert values(found["ml_backend_engine_up"]) == {"": 0.0}
    assert time.monotonic() - started < 5
