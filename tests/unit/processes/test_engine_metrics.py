"""What an engine counts, and who may see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from ml_backend.domain import LabelStudioAccess, Prediction, ProjectKey, Release
from ml_backend.errors import ImageError
from ml_backend.processes.engine import METRICS_TYPE, EngineApp, create_engine_app
from ml_backend.processes.engine_metrics import EngineMetrics, Reading
from ml_backend.service.predictions import PredictionRequest


class Predictions:
    """Has three images in work."""

    def predict(self, request: PredictionRequest) -> list[Prediction | None]:
        """Not asked here."""
        raise NotImplementedError

    def depth(self) -> int:
        """Return 3."""
        return 3


def nothing(*_: Any) -> Any:
    """Not asked here."""
    raise NotImplementedError


def caller(metrics: EngineMetrics, *, secret: str | None = None) -> TestClient:
    """Return a caller of an engine with these counters."""
    find_project: Callable[[str], ProjectKey] = nothing
    find_release: Callable[[ProjectKey, str], Release] = nothing
    access: Callable[[ProjectKey], LabelStudioAccess] = nothing
    engine = EngineApp(
        Predictions(),
        find_project=find_project,
        find_release=find_release,
        access=access,
        device="cuda:0",
        slots=8,
        secret=secret,
        metrics=metrics,
    )
    router = APIRouter()

    @router.get("/things/{name}")
    def thing(name: str) -> dict[str, str]:
        return {"name": name}

    @router.post("/depth")
    def depth() -> dict[str, int]:
        return {"depth": engine.depth()}

    @router.post("/broken")
    def broken() -> None:
        raise ImageError

    return TestClient(create_engine_app(engine, routers=[router]))


def samples(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Return the values by name and by the labels besides the engine's."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {**sample.labels}
            assert labels.pop("engine") == "host:1"
            found.setdefault(sample.name, {})[tuple(labels[name] for name in sorted(labels))] = (
                sample.value
            )
    return found


@pytest.fixture
def metrics() -> EngineMetrics:
    """Return the counters of an engine that has just begun."""
    return EngineMetrics("host:1")


def test_batches_are_counted_with_their_sizes_and_times(metrics: EngineMetrics) -> None:
    metrics.ran(tiles=8, images=2, seconds=0.2)
    metrics.ran(tiles=4, images=1, seconds=0.1)
    metrics.failed(out_of_memory=True)

    found = samples(metrics.render().decode())

    assert found["ml_backend_engine_batches_total"] == {("ok",): 2, ("memory",): 1, ("error",): 0}
    assert found["ml_backend_engine_batch_tiles_sum"] == {(): 12}
    assert found["ml_backend_engine_batch_images_sum"] == {(): 3}
    assert found["ml_backend_engine_batch_seconds_count"] == {(): 2}
    assert found["ml_backend_engine_batch_seconds_bucket"][("0.1",)] == 1


def test_before_the_first_batch_there_are_zeros(metrics: EngineMetrics) -> None:
    found = samples(metrics.render().decode())

    assert set(found["ml_backend_engine_batches_total"].values()) == {0.0}


def test_readings_are_read_when_somebody_asks(metrics: EngineMetrics) -> None:
    values = {(): 1.0}
    asked = {("images", "hit"): 5.0, ("images", "miss"): 1.0}
    metrics.watch(
        [
            Reading(name="ml_backend_engine_depth", text="x", read=lambda: values),
            Reading(
                name="ml_backend_engine_cache_requests",
                text="x",
                read=lambda: asked,
                labels=("cache", "outcome"),
                is_counter=True,
            ),
        ]
    )
    values[()] = 7.0

    found = samples(metrics.render().decode())

    assert found["ml_backend_engine_depth"] == {(): 7.0}
    assert found["ml_backend_engine_cache_requests_total"] == asked


def test_a_reading_that_fails_leaves_the_others(metrics: EngineMetrics) -> None:
    def broken() -> dict[tuple[str, ...], float]:
        raise RuntimeError("the driver has gone")

    metrics.watch(
        [
            Reading(name="ml_backend_engine_gpu", text="x", read=broken),
            Reading(name="ml_backend_engine_depth", text="x", read=lambda: {(): 1.0}),
        ]
    )

    found = samples(metrics.render().decode())

    assert "ml_backend_engine_gpu" not in found
    assert found["ml_backend_engine_depth"] == {(): 1.0}


def test_requests_are_counted_by_route_and_not_by_address(metrics: EngineMetrics) -> None:
    engine = caller(metrics)
    for path in ("/things/a", "/things/b", "/health", "/nowhere/1", "/nowhere/2"):
        engine.get(path)

    answer = engine.get("/metrics")

    assert answer.headers["content-type"] == METRICS_TYPE
    assert samples(answer.text)["ml_backend_engine_requests_total"] == {
        ("/things/{name}", "200"): 2,
        ("/health", "200"): 1,
        ("other", "404"): 2,
    }


def test_health_says_how_much_there_is_to_do_and_how_much_is_done_at_once(
    metrics: EngineMetrics,
) -> None:
    assert caller(metrics).get("/health").json() == {
        "status": "UP",
        "device": "cuda:0",
        "depth": 3,
        "slots": 8,
    }


def test_other_requests_count_as_work_while_they_are(metrics: EngineMetrics) -> None:
    engine = caller(metrics)

    during = engine.post("/depth").json()

    assert during == {"depth": 4}
    assert engine.get("/health").json()["depth"] == 3
    assert engine.post("/broken").status_code == 422
    assert engine.get("/health").json()["depth"] == 3


def test_metrics_want_the_secret_like_everything(metrics: EngineMetrics) -> None:
    engine = caller(metrics, secret="s")

    assert engine.get("/metrics").status_code == 401
    assert engine.get("/metrics", headers={"Authorization": "Bearer s"}).status_code == 200
    assert samples(metrics.render().decode())["ml_backend_engine_requests_total"] == {
        ("/metrics", "200"): 1
    }
