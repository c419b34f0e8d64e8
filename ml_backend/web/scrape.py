"""What a scrape of /metrics gets: counters of this process, gauges of records and engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import TypeVar

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool

from ml_backend.errors import StoreError
from ml_backend.store.census import Census
from ml_backend.web.dependencies import WebDependencies
from ml_backend.web.engine_look import ENGINE_WITHIN_S
from ml_backend.web.metrics import Metrics

RECORDS_WITHIN_S = 2.0

State = TypeVar("State", bound=StrEnum)

log = structlog.get_logger(__name__)


class Scrape:
    """Gathers the text of /metrics; neither the records nor the engine can hold it up."""

    def __init__(self, dependencies: WebDependencies, metrics: Metrics) -> None:
        self._own = dependencies
        self._metrics = metrics
        self._counting: asyncio.Task[Census] | None = None

    async def text(self) -> bytes:
        """Return everything in Prometheus's text format."""
        census, engine = await asyncio.gather(self._count(), self._ask_engine())
        gauges = [
            _gauge("ml_backend_records_up", "Whether the records answer.", census is not None),
            _gauge("ml_backend_engine_up", "Whether an engine answers.", engine is not None),
            *(_census_gauges(census) if census is not None else ()),
        ]
        return b"".join((self._metrics.render(), _text(gauges), engine or b""))

    async def _count(self) -> Census | None:
        # while a database hangs, scrapes come again and again: they share one thread
        if self._counting is None or self._counting.done():
            self._counting = asyncio.create_task(run_in_threadpool(self._own.census.take))
        try:
            return await asyncio.wait_for(asyncio.shield(self._counting), RECORDS_WITHIN_S)
        except (StoreError, TimeoutError):
            return None

    async def _ask_engine(self) -> bytes | None:
        text = await self._own.engine.look("/metrics", timeout_s=ENGINE_WITHIN_S)
        if text is None:
            return None
        try:  # what is no metrics (a proxy's page, say) would spoil the whole scrape
            names = {family.name for family in text_string_to_metric_families(text.decode())}
        except ValueError as error:
            log.warning("engine's metrics cannot be read", reason=str(error)[:200])
            return None
        is_engines = all(name.startswith("ml_backend_engine_") for name in names)
        return text if is_engines and text.endswith(b"\n") else None


def _census_gauges(census: Census) -> Iterator[Metric]:
    work = census.work
    yield _gauge(
        "ml_backend_training_queue_length", "Sessions that wait for a trainer.", work.queued
    )
    yield _gauge("ml_backend_trainers", "Trainers that are there, busy or not.", work.trainers)
    yield _by_state("ml_backend_sessions", "Training sessions by state.", census.sessions)
    yield _by_state(
        "ml_backend_activations", "Swaps of what projects serve, by state.", census.activations
    )
    yield _by_state("ml_backend_versions", "Trained versions by state.", census.versions)
    yield _gauge("ml_backend_kept_predictions", "Predictions in the records.", census.predictions)
    yield _gauge(
        "ml_backend_kept_prediction_bytes", "Their size, compressed.", census.prediction_bytes
    )
    yield _gauge(
        "ml_backend_waiting_events", "Webhook events nobody has looked at.", census.waiting_events
    )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _by_state(name: str, text: str, counts: Mapping[State, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["state"])
    for state, count in counts.items():
        family.add_metric([str(state)], count)
    return family


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _text(families: Iterable[Metric]) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Families(families))
    return generate_latest(registry)
