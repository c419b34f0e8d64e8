"""Counters for Prometheus: per web process, told apart by the label `worker`."""

from __future__ import annotations

import os

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

# else there is a gauge beside every counter, which nobody asks for
disable_created_metrics()  # type: ignore[no-untyped-call]  # untyped in the library
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 80, 100)


class Metrics:
    """What one web process counts.

    A scrape reaches one of the processes; each names itself, so that the series never mix.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "ml_backend_requests",
            "Requests answered, by route and HTTP status.",
            ["worker", "route", "status"],
            registry=self._registry,
        )
        self._latency_s = Histogram(
            "ml_backend_request_seconds",
            "Seconds from a request's arrival to its answer, by route.",
            ["worker", "route"],
            buckets=_LATENCY_BUCKETS_S,
            registry=self._registry,
        )
        self._tasks = Counter(
            "ml_backend_predict_tasks",
            "Tasks asked for in /predict: filled, empty, or replaced because invalid.",
            ["worker", "outcome"],
            registry=self._registry,
        )

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        worker = str(os.getpid())
        self._requests.labels(worker, route, str(status)).inc()
        self._latency_s.labels(worker, route).observe(seconds)

    def count_tasks(self, *, filled: int, replaced: int, total: int) -> None:
        """Count the entries of a /predict answer."""
        worker = str(os.getpid())
        self._tasks.labels(worker, "filled").inc(filled)
        self._tasks.labels(worker, "replaced").inc(replaced)
        self._tasks.labels(worker, "empty").inc(total - filled - replaced)

    def render(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self._registry)
