"""Predictions from a label config alone: no records, nothing kept, nothing learned."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache
from typing import Any

import structlog

from ml_backend.domain import (
    Component,
    DefaultModels,
    LabelConfig,
    LabelStudioAccess,
    Prediction,
    Priority,
    Release,
    Task,
)
from ml_backend.errors import BackendError, BadRequest
from ml_backend.labelstudio.controls import canonical_config
from ml_backend.labelstudio.targets import requested_by
from ml_backend.service.predictions import PredictsTasks
from ml_backend.store.releases import release_version

_CONFIGS_KEPT = 64

log = structlog.get_logger(__name__)

AccessOf = Callable[[str | None, str | None], LabelStudioAccess]
"""From the address and the token of a /setup request to where images are fetched."""


class UnrecordedPredictions:
    """Answers for every label config; safe for many threads."""

    def __init__(
        self,
        predictor: PredictsTasks,
        resolve: Callable[[str], Component],
        *,
        parse: Callable[[str], LabelConfig],
        models: DefaultModels,
        revision: str,
        access: AccessOf,
        threads: int,
        budget_s: float,
    ) -> None:
        """Keep the collaborators.

        Args:
            predictor: Predicts a task.
            resolve: Turns a model's name into its component; raises ModelError.
            parse: Reads label configs; raises ConfigError.
            models: What the settings name.
            revision: Of the post-processing.
            access: To Label Studio.
            threads: Tasks in work at once.
            budget_s: Seconds within which a request is answered.
        """
        self._predictor = predictor
        self._models = models
        self._revision = revision
        self._access = access
        self._budget_s = budget_s
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="predict")
        self._parse = lru_cache(maxsize=_CONFIGS_KEPT)(parse)
        self._resolve = lru_cache(maxsize=_CONFIGS_KEPT)(resolve)

    def release(self, label_config: str) -> Release:
        """Return what a label config is served with; its version is that of our other processes.

        Raises:
            ConfigError, ModelError
        """
        config = self._parse(label_config)
        components = {
            control.name: self._resolve(requested_by(control, self._models))
            for control in config.served
        }
        version = release_version(components, canonical_config(config), self._revision)
        return Release(version=version, components=components, label_config=label_config)

    def predict(
        self,
        rows: Sequence[Mapping[str, Any]],
        label_config: str,
        *,
        hostname: str | None,
        access_token: str | None,
    ) -> list[dict[str, Any]]:
        """Return Label Studio's entries, one for each task, {} where there is none in time.

        Args:
            rows: The tasks as Label Studio sends them.
            label_config: XML.
            hostname: Of Label Studio, as its /setup gave it; None = not given.
            access_token: Of the same.

        Raises:
            BadRequest: a task has no number.
            ConfigError, ModelError
        """
        deadline = time.monotonic() + self._budget_s
        release, config = self.release(label_config), self._parse(label_config)
        access = self._access(hostname, access_token)
        tasks = [_task(row) for row in rows]

        def work(task: Task) -> Prediction | None:
            if time.monotonic() >= deadline:
                return None
            try:
                return self._predictor.predict(
                    task,
                    release=release,
                    config=config,
                    access=access,
                    priority=Priority.INTERACTIVE if len(tasks) == 1 else Priority.BATCH,
                )
            except BackendError as error:
                log.warning("task failed", task=task.id, code=error.code, reason=error.message)
            except Exception:  # one task must not spoil the others
                log.exception("prediction failed unexpectedly", task=task.id)
            return None

        futures = [self._pool.submit(work, task) for task in tasks]
        wait(futures, timeout=max(0.0, deadline - time.monotonic()))
        return [_entry(future) for future in futures]


def _entry(future: Future[Prediction | None]) -> dict[str, Any]:
    prediction = future.result() if future.done() else None
    future.cancel()
    return {} if prediction is None else prediction.to_json()


def _task(row: Mapping[str, Any]) -> Task:
    number, data = row.get("id"), row.get("data")
    if not isinstance(number, int):
        raise BadRequest('A task of the request has no "id" that is a whole number.')
    return Task(id=number, data=data if isinstance(data, dict) else {})
