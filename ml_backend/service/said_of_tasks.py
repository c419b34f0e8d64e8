"""What people or a version say of the tasks of a project, one task at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ml_backend.domain import Prediction, ProjectKey, Task
from ml_backend.labelstudio.annotation_choice import choose_annotations
from ml_backend.labelstudio.stored_predictions import TaskVersions
from ml_backend.learning import Multiple
from ml_backend.store.annotations import AnnotationLedger
from ml_backend.store.predictions import KeptPredictions

_TASKS_AT_A_TIME = 20  # their regions may be many megabytes each


@dataclass(frozen=True, kw_only=True)
class Said:
    """What one person or version says of one task."""

    task_id: int
    data: Mapping[str, Any] | None = field(repr=False)  # of the task; None = not known
    result: Sequence[Mapping[str, Any]] = field(repr=False)
    annotation_id: int | None = None
    score: float | None = None  # of a prediction, 0..1


class ProjectTasks(Protocol):
    """The part of a Label Studio that is needed here."""

    def tasks(self, project_id: int) -> Iterator[Task]:
        """Yield the tasks of a project."""
        ...


class PredictionShelf(Protocol):
    """The part of `StoredPredictions` that is needed here."""

    def tasks_with(self, project_id: int, version: str) -> Iterator[TaskVersions]:
        """Yield the tasks that hold a prediction of `version`."""
        ...

    def newest_of_task(self, task_id: int, version: str) -> Prediction | None:
        """Return the newest prediction of a task by `version`."""
        ...


def annotations_of(
    ledger: AnnotationLedger, project: ProjectKey, *, every: bool, notes: list[str]
) -> Iterator[Said]:
    """Yield the annotations of a project, by task.

    Args:
        ledger: Where they are kept.
        project: Whose.
        every: Each person's; else of each task the one that training learns from.
        notes: Gets a sentence for each that is left out.

    Raises:
        StoreError
    """
    notes += ledger.problems(project).values()
    task_ids = sorted(ledger.task_hashes(project))
    for start in range(0, len(task_ids), _TASKS_AT_A_TIME):
        chunk = task_ids[start : start + _TASKS_AT_A_TIME]
        counted = ledger.counted(project, task_ids=chunk)
        for task_id in chunk:
            of_task = [one for one in counted if one.task_id == task_id]
            task = ledger.task(project, task_id)
            for annotation in choose_annotations(
                of_task, Multiple.ALL if every else Multiple.LATEST
            ):
                yield Said(
                    task_id=task_id,
                    data=None if task is None else task.data,
                    result=annotation.result,
                    annotation_id=annotation.annotation_id,
                )


def predictions_of(
    kept: KeptPredictions,
    ledger: AnnotationLedger,
    project: ProjectKey,
    version: str,
    *,
    label_studio: ProjectTasks | None,
    shelf: PredictionShelf | None,
    notes: list[str],
) -> Iterator[Said]:
    """Yield the predictions of a project by a version, by task.

    Those that are kept here come from here, the others from Label Studio.

    Args:
        kept: Those that are kept here.
        ledger: Knows the data of annotated tasks, where Label Studio is not asked.
        project: Whose.
        version: That made them.
        label_studio: Knows all tasks; None without credentials.
        shelf: The predictions in that Label Studio.
        notes: Gets a sentence about what is missing.

    Raises:
        StoreError, LabelStudioError
    """
    here = set(kept.finished_tasks(project, version))
    if label_studio is None or shelf is None:
        notes.append(
            "Label Studio was not asked for predictions that are not kept here any more; set "
            "LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY for all of them."
        )
        for task_id in sorted(here):
            known = ledger.task(project, task_id)
            found = kept.newest(project, version, task_id)
            if found is not None:
                yield _said(task_id, None if known is None else known.data, found)
        return
    there = {held.task_id for held in shelf.tasks_with(project.project_id, version)} - here
    missing = 0
    for task in label_studio.tasks(project.project_id):
        prediction = None
        if task.id in here:
            prediction = kept.newest(project, version, task.id)
        elif task.id in there:
            prediction = shelf.newest_of_task(task.id, version)
        if prediction is None:
            missing += 1
        else:
            yield _said(task.id, task.data, prediction)
    if missing:
        tasks = "One task has" if missing == 1 else f"{missing} tasks have"
        notes.append(
            f"{tasks} no prediction of {version}; choose Retrieve Predictions for what is missing "
            "in Label Studio, then export again."
        )


def _said(task_id: int, data: Mapping[str, Any] | None, prediction: Prediction) -> Said:
    return Said(task_id=task_id, data=data, result=prediction.result, score=prediction.score)
