"""Predicts the tasks that people will open next before a new version is shown to them.

What Label Studio is given here it shows the moment the project is flipped: no page waits for a
network, and no task looks empty.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from ml_backend.domain import LabelStudioAccess, Prediction, ProjectKey, Release, Task
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.service.predictions import PredictionRequest
from ml_backend.store.deliveries import Deliveries
from ml_backend.store.prediction_rows import PredictionKey

CHUNK = 50  # tasks a push: Label Studio checks every region, and annotators wait meanwhile

log = structlog.get_logger(__name__)


class PredictsAhead(Protocol):
    """The part of the prediction service that is needed here."""

    def predict_ahead(self, request: PredictionRequest) -> dict[PredictionKey, Prediction]:
        """Return what is there within the request's budget, behind all who wait."""
        ...


class PredictionStock(Protocol):
    """The part of the Label Studio client that is needed here."""

    def unannotated_tasks(self, project_id: int, *, limit: int) -> list[Task]:
        """Return tasks that nobody has annotated, in the order they are handed out."""
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


@dataclass(frozen=True, kw_only=True)
class Stocked:
    """What Label Studio holds of a version that nobody is shown yet."""

    wanted: int  # tasks that nobody has annotated, as far as they are looked at
    held: int  # of them, those with a prediction of the version
    refused: int  # predictions that Label Studio dropped as invalid

    def sentence(self) -> str:
        """Return what a person should know."""
        text = f"{self.held} of {self.wanted} open tasks were predicted ahead"
        return f"{text}; Label Studio dropped {self.refused} as invalid" if self.refused else text


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """Predicts and stores ahead, within bounds."""

    predictions: PredictsAhead
    deliveries: Deliveries
    most_tasks: int
    most_seconds: float
    clock: Callable[[], float] = time.monotonic

    def stock(
        self,
        label_studio: PredictionStock,
        project: ProjectKey,
        release: Release,
        access: LabelStudioAccess,
        *,
        go_on: Callable[[], None] = lambda: None,
    ) -> Stocked:
        """Store predictions of `release` for open tasks; one that is there gets no second.

        Args:
            label_studio: where the project lives.
            project: whose tasks.
            release: what predicts them.
            access: how their images are fetched.
            go_on: called before each part; ends everything by raising.

        Raises:
            LabelStudioError, StoreError
        """
        deadline = self.clock() + self.most_seconds
        number = project.project_id
        tasks = label_studio.unannotated_tasks(number, limit=self.most_tasks)
        held = label_studio.tasks_with_prediction(
            number, [task.id for task in tasks], release.version
        )
        refused = 0
        request = PredictionRequest(
            project=project,
            release=release,
            config=parse_label_config(release.label_config),
            tasks=(),
            access=access,
            budget_s=0.0,
        )
        for chunk in _chunks([task for task in tasks if task.id not in held]):
            go_on()
            left_s = deadline - self.clock()
            if left_s <= 0:
                break
            ready = self.predictions.predict_ahead(replace(request, tasks=chunk, budget_s=left_s))
            sent, stored = self._push(label_studio, number, release.version, ready)
            held |= sent
            refused += len(sent) - stored
        stocked = Stocked(wanted=len(tasks), held=len(held) - refused, refused=refused)
        log.info("predicted ahead", project=str(project), version=release.version, **vars(stocked))
        return stocked

    def _push(
        self,
        label_studio: PredictionStock,
        number: int,
        version: str,
        ready: dict[PredictionKey, Prediction],
    ) -> tuple[set[int], int]:
        """Return the tasks that were sent, and how many of them Label Studio accepted."""
        task_ids = [key.task_id for key in ready]
        # one unknown task would make Label Studio refuse the whole list
        wanted = label_studio.existing_tasks(number, task_ids)
        wanted -= label_studio.tasks_with_prediction(number, task_ids, version)
        rows = [(key.task_id, item) for key, item in ready.items() if key.task_id in wanted]
        stored = label_studio.import_predictions(number, rows) if rows else 0
        self.deliveries.mark(list(ready))
        return {task_id for task_id, _ in rows}, stored


def _chunks(tasks: Sequence[Task]) -> Iterator[Sequence[Task]]:
    for start in range(0, len(tasks), CHUNK):
        yield tasks[start : start + CHUNK]
