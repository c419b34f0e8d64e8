"""Predictions by a toolkit class: one task at a time, each kept and answered like our own."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from ml_backend.domain import (
    LabelConfig,
    LabelStudioAccess,
    Prediction,
    ProjectKey,
    Release,
    Task,
    Urgency,
)
from ml_backend.errors import BackendError, EngineUnavailable, ToolkitError
from ml_backend.hosting.answers import Answered, complaint, entries_of, read_entry
from ml_backend.hosting.failures import guarded
from ml_backend.hosting.instances import Instances
from ml_backend.hosting.tag_names import known_names
from ml_backend.service.predictions import PredictionRequest, PredictionService
from ml_backend.service.toolkit_releasing import ToolkitReleasing

log = structlog.get_logger(__name__)


class ToolkitPredictor:
    """Asks the class; safe to call from many threads."""

    def __init__(self, instances: Instances, releasing: ToolkitReleasing) -> None:
        self._instances = instances
        self._releasing = releasing
        self._checked: set[str] = set()  # versions whose first prediction was looked at
        self._lock = threading.Lock()

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
            ToolkitError: the class has failed, gave nothing, or is another release by now.
            BackendError: an error of ours that it passed on: a file could not be fetched.
        """
        del config, access, priority  # it reads the config itself, and files come through its ports
        [prediction] = self.ask([task], release, context=None)
        if prediction is None:
            raise ToolkitError(
                f"{release.version} gave no prediction for the task, which is asked for again "
                "later."
            )
        return prediction

    def ask(
        self, tasks: Sequence[Task], release: Release, *, context: Mapping[str, Any] | None
    ) -> list[Prediction | None]:
        """Return what the class predicts in one call, None for tasks it says nothing of.

        Raises:
            ToolkitError, BackendError: as `predict`.
        """
        project = project_of(release)
        toolkit_class = self._instances.toolkit_class
        with self._instances.use(project, release.label_config) as instance:
            # after it was made, for that can set another version; before it answers under this one
            now = self._releasing.refresh(project, release)
            if now.version != release.version:
                raise ToolkitError(
                    f"{release.version} is {now.version} by now, under which the task is asked for "
                    "again."
                )
            rows = [_row(task) for task in tasks]
            asked = None if context is None else dict(context)
            answer = guarded(
                f"predict() of {toolkit_class.name}",
                toolkit_class.folder,
                lambda: instance.predict(rows, context=asked),
            )
            entries = entries_of(answer, len(tasks))
            is_known = known_names(release.label_config)
            answered = [read_entry(entry, is_known) for entry in entries]
            self._look_at_first(release, answered, instance)
        for task, found in zip(tasks, answered, strict=True):
            for note in dict.fromkeys(found.notes if found else ()):
                log.warning(
                    "part of a prediction left out",
                    task=task.id,
                    version=release.version,
                    reason=note,
                )
        self._releasing.refresh(project, release)  # predict() may set a version, too
        return [
            None
            if found is None
            else Prediction(result=found.result, score=found.score, model_version=release.version)
            for found in answered
        ]

    def _look_at_first(
        self, release: Release, answered: Sequence[Answered | None], instance: Any
    ) -> None:
        """Say once a version what Label Studio's own validator thinks; it is off by default."""
        first = next((found for found in answered if found and found.result), None)
        validate = getattr(getattr(instance, "label_interface", None), "validate_prediction", None)
        with self._lock:
            if first is None or validate is None or release.version in self._checked:
                return
            self._checked.add(release.version)
        entry = {
            "result": first.result,
            "score": first.score,
            "model_version": release.version,
        }
        try:
            reason = complaint(validate(entry, return_errors=True))
        except Exception as error:  # of the validator, which is not ours
            reason = f"the validator failed ({error!r:.200})"
        if reason:
            log.warning(
                "Label Studio's validator would refuse a prediction",
                version=release.version,
                reason=reason,
            )


class ToolkitPredictions:
    """Answers requests: of the kept predictions and the queue, or at once where a person draws."""

    def __init__(
        self,
        service: PredictionService,
        predictor: ToolkitPredictor,
        instances: Instances,
        releasing: ToolkitReleasing,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._predictor = predictor
        self._instances = instances
        self._releasing = releasing
        self._clock = clock

    def set_up(self, project: ProjectKey, label_config: str, *, budget_s: float) -> str | None:
        """Have a project's instance made; return the version it serves, None when not in time.

        Raises:
            ToolkitError: it cannot be made.
            BackendError: an error of ours that it passed on.
        """
        if not self._instances.prepare(project, label_config, timeout_s=budget_s):
            return None
        return self._releasing.make(project, label_config).version

    def predict(self, request: PredictionRequest) -> list[Prediction | None]:
        """Return one prediction per task, in order; None where there is none in time.

        Raises:
            EngineUnavailable: the project serves another release by now; ask for that.
            ToolkitError: the class cannot be set up.
            BackendError: an error of ours that it passed on.
        """
        deadline = self._clock() + request.budget_s
        config = request.release.label_config
        if not self._instances.prepare(request.project, config, timeout_s=request.budget_s):
            log.info("toolkit class is still being set up", project=str(request.project))
            return [None] * len(request.tasks)
        now = self._releasing.refresh(request.project, request.release)
        if now.version != request.release.version:
            raise EngineUnavailable(f"{request.release.version} is {now.version} by now.")
        left_s = max(0.0, deadline - self._clock())
        if request.context is None:
            return self._service.predict(replace(request, budget_s=left_s))
        return self._at_once(request)

    def depth(self) -> int:
        """Return how many tasks wait or are in work."""
        return self._service.depth()

    def _at_once(self, request: PredictionRequest) -> list[Prediction | None]:
        """Answer what a person draws: it is theirs at that moment, never kept or delivered."""
        try:
            return self._predictor.ask(request.tasks, request.release, context=request.context)
        except BackendError as error:
            log.warning("interactive request failed", code=error.code, reason=error.message)
            return [None] * len(request.tasks)


def project_of(release: Release) -> ProjectKey:
    """Return whose release it is.

    Raises:
        ToolkitError: it does not say.
    """
    if release.project is None:
        raise ToolkitError(f"The release {release.version} names no project; ask for it again.")
    return release.project


def _row(task: Task) -> dict[str, Any]:
    """Return a task as the toolkit hands it over; the class may change its own copy."""
    row = {"id": task.id, "annotations": [], "predictions": [], **(task.row or {})}
    return copy.deepcopy({**row, "data": dict(task.data)})
