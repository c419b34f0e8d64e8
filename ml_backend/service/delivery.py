"""Pushes predictions that were finished after their request had to be answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import structlog

from ml_backend.domain import Prediction, ProjectKey
from ml_backend.errors import BackendError
from ml_backend.labelstudio.rows import ProjectInfo
from ml_backend.store.deliveries import Deliveries
from ml_backend.store.open_requests import OpenRequests
from ml_backend.store.prediction_rows import PredictionKey
from ml_backend.store.projects import Projects
from ml_backend.store.releases import Releases

EVERY_S = 3.0
LONGEST_PAUSE_S = 300.0  # between two attempts at a Label Studio that refuses
CHUNK = 10  # predictions a push: while it runs, a person may open one of these tasks

log = structlog.get_logger(__name__)


class PredictionSink(Protocol):
    """The part of the Label Studio client that a push needs."""

    def project(self, project_id: int) -> ProjectInfo:
        """Return what Label Studio knows under this number now."""
        ...

    def existing_tasks(self, project_id: int, task_ids: Iterable[int]) -> set[int]:
        """Return those of `task_ids` that the project still has."""
        ...

    def tasks_with_prediction(
        self, project_id: int, task_ids: Iterable[int], version: str
    ) -> set[int]:
        """Return those of `task_ids` that already hold a prediction of `version`."""
        ...

    def import_predictions(self, project_id: int, items: Sequence[tuple[int, Prediction]]) -> int:
        """Store (task id, prediction) pairs; return how many Label Studio accepted."""
        ...


class Delivery:
    """Looks for undelivered predictions every few seconds; a context manager with one thread.

    A prediction is pushed only when its version is what the project serves, no request that may
    carry it is open, and Label Studio holds none of that version for the task: never a second row.
    """

    def __init__(
        self,
        deliveries: Deliveries,
        open_requests: OpenRequests,
        projects: Projects,
        releases: Releases,
        sink: Callable[[ProjectKey], PredictionSink | None],
    ) -> None:
        self._deliveries = deliveries
        self._open_requests = open_requests
        self._projects = projects
        self._releases = releases
        self._sink = sink
        self._failures: dict[ProjectKey, tuple[int, float]] = {}  # in a row, not before (s)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)

    def __enter__(self) -> Delivery:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._closing.wait(EVERY_S):
            try:
                for project in self._projects.all():
                    self._deliver_or_log(project.key)
            except Exception:  # the thread must live on; the next round may do
                log.exception("delivery failed unexpectedly")

    def _deliver_or_log(self, project: ProjectKey) -> None:
        failures, not_before = self._failures.get(project, (0, 0.0))
        if time.monotonic() < not_before:
            return
        try:
            self.deliver(project)
        except BackendError as error:  # Label Studio may be away; a later round may do
            pause = min(LONGEST_PAUSE_S, EVERY_S * 2.0**failures)
            self._failures[project] = (failures + 1, time.monotonic() + pause)
            log.warning("push failed", project=str(project), reason=error.message, pause_s=pause)
        else:
            self._failures.pop(project, None)

    def deliver(self, project: ProjectKey) -> int:
        """Push what is due for one project; return how many predictions Label Studio stored.

        Raises:
            LabelStudioError, StoreError
        """
        sink = self._sink(project)
        release = self._releases.active(project)
        if sink is None or release is None:
            return 0
        claimed = self._claim(str(project), release.version)
        if not claimed:
            return 0
        try:
            return self._push(sink, project, release.version, claimed)
        except BackendError:
            self._deliveries.give_back(list(claimed))
            raise

    def _claim(self, project: str, version: str) -> dict[PredictionKey, Prediction]:
        """Return predictions that this engine alone delivers now, at most `CHUNK`."""
        due = dict(self._deliveries.due(project, version, limit=CHUNK))
        busy = self._open_requests.is_open(project, version, [key.task_id for key in due])
        free = [key for key in due if key.task_id not in busy]
        return {key: due[key] for key in self._deliveries.claim(free)} if free else {}

    def _push(
        self,
        sink: PredictionSink,
        project: ProjectKey,
        version: str,
        claimed: dict[PredictionKey, Prediction],
    ) -> int:
        if sink.project(project.project_id).created_at != project.created_at:
            # a Label Studio that was reset, or another one: its tasks only share the numbers
            log.warning("predictions of a project that is gone are dropped", project=str(project))
            return 0
        task_ids = [key.task_id for key in claimed]
        # one unknown task would make Label Studio refuse the whole list
        wanted = sink.existing_tasks(project.project_id, task_ids)
        wanted -= sink.tasks_with_prediction(project.project_id, task_ids, version)
        opened = self._open_requests.is_open(str(project), version, task_ids)  # since the claim
        self._deliveries.give_back([key for key in claimed if key.task_id in opened])
        rows = [
            (key.task_id, prediction)
            for key, prediction in claimed.items()
            if key.task_id in wanted - opened
        ]
        stored = sink.import_predictions(project.project_id, rows) if rows else 0
        log.info("pushed predictions", project=str(project), sent=len(rows), stored=stored)
        return stored
