"""Predictions for whole requests: in time, once each, kept for whoever asks next."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from ml_backend.domain import (
    LabelConfig,
    LabelStudioAccess,
    Prediction,
    Priority,
    ProjectKey,
    Release,
    Task,
    Urgency,
)
from ml_backend.errors import BackendError, StoreError
from ml_backend.service.task_prediction import input_hash
from ml_backend.service.work_queue import Job, WorkQueue
from ml_backend.store.deliveries import Deliveries
from ml_backend.store.open_requests import OpenRequests
from ml_backend.store.predictions import ClaimState, KeptPredictions, PredictionKey

LEASE_S = 15.0  # a computation whose engine died can be claimed by another after this long
RENEW_EVERY_S = 5.0
LOOK_AGAIN_S = 0.5  # while another engine computes the same prediction
RETRY_FAILED_AFTER_S = 60.0
SAVING_GRACE_S = 15.0  # after our answer, until Label Studio has surely stored it

log = structlog.get_logger(__name__)


class PredictsTasks(Protocol):
    """Predicts one task; safe to call from many threads."""

    def predict(
        self,
        task: Task,
        *,
        release: Release,
        config: LabelConfig,
        access: LabelStudioAccess,
        priority: Urgency,
    ) -> Prediction:
        """Return the prediction of `task` by `release`.

        Raises:
            BackendError: there is none now; the task is tried again later.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class PredictionRequest:
    """What Label Studio asked for in one request."""

    project: ProjectKey
    release: Release
    config: LabelConfig
    tasks: Sequence[Task]
    access: LabelStudioAccess
    budget_s: float  # seconds from now until the answer must be there
    context: Mapping[str, Any] | None = None  # what a person draws, for toolkit classes

    def key(self, task: Task) -> PredictionKey:
        """Return what the prediction of `task` is kept under."""
        return PredictionKey(
            project=str(self.project),
            task_id=task.id,
            version=self.release.version,
            input_hash=input_hash(task, self.config),
        )


@dataclass(frozen=True, kw_only=True)
class _Work:
    task: Task
    request: PredictionRequest


PredictionJob = Job[PredictionKey, _Work, Prediction | None]


@contextmanager
def _kept_going(action: str) -> Iterator[None]:
    """Log that a note in the records failed: what was computed is answered all the same."""
    try:
        yield
    except StoreError as error:
        log.warning(action, reason=error.message)


class PredictionService:
    """Answers requests from kept predictions and from work shared by all who wait for it.

    A context manager: entering starts its threads, leaving stops them after the task in hand.
    """

    def __init__(
        self,
        predictor: PredictsTasks,
        kept: KeptPredictions,
        deliveries: Deliveries,
        open_requests: OpenRequests,
        *,
        threads: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._predictor = predictor
        self._kept = kept
        self._deliveries = deliveries
        self._open_requests = open_requests
        self._clock = clock
        self._owner = uuid.uuid4().hex
        self._queue: WorkQueue[PredictionKey, _Work, Prediction | None] = WorkQueue()
        self._asked = (0, 0)
        self._leased: set[PredictionKey] = set()
        self._leased_lock = threading.Lock()
        self._closing = threading.Event()
        # one thread takes only what a person waits for: it is never busy with a batch
        limits = [Priority.INTERACTIVE, *[Priority.BACKGROUND] * threads]
        self._threads = [
            threading.Thread(target=self._work, args=(limit,), name=f"predict-{n}", daemon=True)
            for n, limit in enumerate(limits)
        ]
        self._threads.append(threading.Thread(target=self._renew, name="renew", daemon=True))

    def __enter__(self) -> PredictionService:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        for job in self._queue.close():
            self._queue.finish(job, None)
        for thread in self._threads:
            thread.join(timeout=5)

    def predict(self, request: PredictionRequest) -> list[Prediction | None]:
        """Return one prediction per task, in order; None where there is none in time.

        What is not done in time goes on behind the answer and is kept.
        """
        deadline = self._clock() + request.budget_s
        task_ids = [task.id for task in request.tasks]
        request_id = None
        with _kept_going("request not noted as open"):
            request_id = self._open_requests.open(
                str(request.project),
                request.release.version,
                task_ids,
                expires_s=request.budget_s + SAVING_GRACE_S,
            )
        priority = Priority.INTERACTIVE if len(task_ids) == 1 else Priority.BATCH
        try:
            answers = self._answer(request, deadline, priority)
            with _kept_going("predictions not marked as delivered"):
                self._deliveries.mark(list(answers))
            return [answers.get(request.key(task)) for task in request.tasks]
        finally:
            if request_id is not None:
                with _kept_going("request not noted as answered"):
                    self._open_requests.close(request_id, grace_s=SAVING_GRACE_S)

    def predict_ahead(self, request: PredictionRequest) -> dict[PredictionKey, Prediction]:
        """Return what is there in time, behind everything that somebody waits for.

        Nothing of it counts as delivered: whoever delivers it says so.
        """
        deadline = self._clock() + request.budget_s
        return self._answer(request, deadline, Priority.BACKGROUND)

    def asked(self) -> tuple[int, int]:
        """Return how many predictions were kept when they were asked for, and how many not."""
        return self._asked

    def depth(self) -> int:
        """Return how many tasks wait or are in work."""
        return self._queue.depth()

    def _answer(
        self, request: PredictionRequest, deadline: float, priority: Priority
    ) -> dict[PredictionKey, Prediction]:
        keys = [request.key(task) for task in request.tasks]
        answers = self._kept.get_many(keys)
        with self._leased_lock:
            hits, misses = self._asked
            self._asked = (hits + len(answers), misses + len(set(keys)) - len(answers))
        jobs = {
            key: self._queue.submit(key, _Work(task=task, request=request), priority)
            for key, task in zip(keys, request.tasks, strict=True)
            if key not in answers
        }
        wait([job.future for job in jobs.values()], timeout=max(0.0, deadline - self._clock()))
        for key, job in jobs.items():
            self._queue.leave(job, priority)
            if job.future.done() and (prediction := job.future.result()) is not None:
                answers[key] = prediction
        if len(answers) < len(set(keys)):
            log.info(
                "answered without all predictions",
                project=str(request.project),
                tasks=len(keys),
                missing=len(set(keys)) - len(answers),
            )
        return answers

    def _work(self, most: Priority) -> None:
        while (job := self._queue.take(most)) is not None:
            try:
                self._do(job)
            except Exception:  # the thread must live on, and the waiting request get its answer
                log.exception("prediction failed unexpectedly", task=job.work.task.id)
                self._queue.finish(job, None)

    def _do(self, job: PredictionJob) -> None:
        claim = self._kept.claim(job.key, self._owner, lease_s=LEASE_S)
        if claim.state is ClaimState.PENDING:
            self._queue.put_back(job, LOOK_AGAIN_S)
        elif claim.state is ClaimState.CLAIMED:
            self._queue.finish(job, self._compute(job))
        else:
            self._queue.finish(job, claim.prediction)

    def _compute(self, job: PredictionJob) -> Prediction | None:
        task, request = job.work.task, job.work.request
        with self._leased_lock:
            self._leased.add(job.key)
        started = self._clock()
        try:
            prediction = self._predictor.predict(
                task,
                release=request.release,
                config=request.config,
                access=request.access,
                priority=lambda: job.priority,
            )
        except BackendError as error:
            log.warning("task failed", task=task.id, code=error.code, reason=error.message)
            self._kept.fail(job.key, self._owner, error.message, retry_after_s=RETRY_FAILED_AFTER_S)
            return None
        except Exception as error:  # kept as a failure, then logged where the thread lives on
            self._kept.fail(
                job.key, self._owner, repr(error)[:500], retry_after_s=RETRY_FAILED_AFTER_S
            )
            raise
        finally:
            with self._leased_lock:
                self._leased.discard(job.key)
        with _kept_going("prediction answered but not kept"):
            self._kept.complete(job.key, self._owner, prediction)
        log.info(
            "task predicted",
            task=task.id,
            version=prediction.model_version,
            regions=len(prediction.result),
            seconds=round(self._clock() - started, 3),
        )
        return prediction

    def _renew(self) -> None:
        while not self._closing.wait(RENEW_EVERY_S):
            with self._leased_lock:
                keys = list(self._leased)
            if keys:
                try:
                    self._kept.renew(keys, self._owner, lease_s=LEASE_S)
                except Exception:  # the thread must live on; the next round may do
                    log.exception("leases not renewed")
