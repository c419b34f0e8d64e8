"""Counters and gauges of one engine for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# else there is a gauge beside every counter, which nobody asks for
disable_created_metrics()  # type: ignore[no-untyped-call]  # untyped in the library
_BATCH_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_REQUEST_BUCKETS_S = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 100)
_SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A number that is read when somebody asks, one for each combination of labels."""

    name: str  # without the suffix _total
    text: str
    read: Callable[[], Mapping[tuple[str, ...], float]]
    labels: tuple[str, ...] = ()
    is_counter: bool = False  # it only grows


class EngineMetrics:
    """What one engine counts; it is told of batches by the device's thread.

    Every series names its engine, so that those behind a load balancer never mix.
    """

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._registry = CollectorRegistry()
        self._batches = Counter(
            "ml_backend_engine_batches",
            "Batches that the device was given, by what came of them: ok, memory, error.",
            ["engine", "outcome"],
            registry=self._registry,
        )
        self._batch_seconds = self._histogram(
            "batch_seconds", "Seconds from handing a batch to the device to its answer.",
            _BATCH_BUCKETS_S,
        )  # fmt: skip
        self._batch_tiles = self._histogram(
            "batch_tiles", "Tiles in a batch that was answered.", _SIZE_BUCKETS
        )
        self._batch_images = self._histogram(
            "batch_images", "Images that the tiles of such a batch are of.", _SIZE_BUCKETS
        )
        self._requests = Counter(
            "ml_backend_engine_requests",
            "Requests answered, by route and HTTP status.",
            ["engine", "route", "status"],
            registry=self._registry,
        )
        self._request_seconds = Histogram(
            "ml_backend_engine_request_seconds",
            "Seconds from a request's arrival until its answer began, by route.",
            ["engine", "route"],
            buckets=_REQUEST_BUCKETS_S,
            registry=self._registry,
        )
        for outcome in ("ok", "memory", "error"):  # 0 before the first, and not missing
            self._batches.labels(engine, outcome)

    def ran(self, *, tiles: int, images: int, seconds: float) -> None:
        """Count a batch that was answered."""
        self._batches.labels(self._engine, "ok").inc()
        self._batch_seconds.labels(self._engine).observe(seconds)
        self._batch_tiles.labels(self._engine).observe(tiles)
        self._batch_images.labels(self._engine).observe(images)

    def failed(self, *, out_of_memory: bool) -> None:
        """Count a batch that the device did not answer."""
        self._batches.labels(self._engine, "memory" if out_of_memory else "error").inc()

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(self._engine, route, str(status)).inc()
        self._request_seconds.labels(self._engine, route).observe(seconds)

    def watch(self, readings: Iterable[Reading]) -> None:
        """Have these read at every scrape from now on."""
        self._registry.register(_Readings(self._engine, readings))

    def render(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self._registry)

    def _histogram(self, name: str, text: str, buckets: Iterable[float]) -> Histogram:
        return Histogram(
            f"ml_backend_engine_{name}",
            text,
            ["engine"],
            buckets=tuple(buckets),
            registry=self._registry,
        )


class _Readings(Collector):
    def __init__(self, engine: str, readings: Iterable[Reading]) -> None:
        self._engine = engine
        self._readings = list(readings)

    def describe(self) -> Iterable[Metric]:
        return ()  # nothing is read before somebody asks

    def collect(self) -> Iterable[Metric]:
        for reading in self._readings:
            make = CounterMetricFamily if reading.is_counter else GaugeMetricFamily
            family = make(reading.name, reading.text, labels=("engine", *reading.labels))
            try:
                found = reading.read()
            except Exception:  # the others are worth having
                log.exception("reading failed", name=reading.name)
                continue
            for labels, value in found.items():
                family.add_metric([self._engine, *labels], value)
            yield family
