"""Works recorded events into the annotation ledger and into training sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from ml_backend.domain import ProjectKey
from ml_backend.errors import BackendError, StoreError
from ml_backend.labelstudio.events import (
    AnnotationsDeleted,
    AnnotationsSaved,
    EventProject,
    LabelStudioEvent,
    ProjectUpdated,
    TasksDeleted,
    TasksSaved,
    TrainingWanted,
    read_event,
)
from ml_backend.labelstudio.webhooks import UNKNOWN_ORIGIN
from ml_backend.learning import Trigger
from ml_backend.service.planning import Planner
from ml_backend.store.annotations import AnnotationLedger
from ml_backend.store.events import Event, Events, EventState, join_ids
from ml_backend.store.projects import Projects

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Worked:
    """What came of the events that waited."""

    events: int
    projects: frozenset[ProjectKey]  # that they belong to


class KeepsForFit(Protocol):
    """Has events wait for a toolkit class, besides what the ledger makes of them."""

    def wants(self, action: str) -> bool:
        """Return whether the class wants events of this kind."""
        ...

    def keep(self, job: str, project: ProjectKey, message: str) -> None:
        """Have an event wait; `message` says what the ledger made of it."""
        ...


class EventLedger:
    """Takes events in the order they came; working on one twice does no harm."""

    def __init__(
        self,
        events: Events,
        projects: Projects,
        ledger: AnnotationLedger,
        planner: Planner | None,
        *,
        label_studio_url: str | None = None,
        fits: KeepsForFit | None = None,
    ) -> None:
        """Prepare it.

        Args:
            events, projects, ledger: The records.
            planner: Queues the sessions that people ask for; None where a toolkit class is served.
            label_studio_url: Origin of projects that nothing else names.
            fits: Where a toolkit class is served: has its events wait.
        """
        self._events = events
        self._projects = projects
        self._ledger = ledger
        self._planner = planner
        self._label_studio_url = label_studio_url
        self._fits = fits

    def work(self, limit: int = 100) -> Worked:
        """Work on the oldest events that nobody has worked on.

        Raises:
            StoreError: the records are away; the events stay queued.
        """
        waiting = self._events.queued(limit=limit)
        known = [project.key for project in self._projects.all()] if waiting else []
        touched: set[ProjectKey] = set()
        for event in waiting:
            project = self._work_or_note(event, known)
            if project is not None:
                touched.add(project)
        return Worked(events=len(waiting), projects=frozenset(touched))

    def _work_or_note(self, event: Event, known: Sequence[ProjectKey]) -> ProjectKey | None:
        try:
            return self._work(event, known)
        except StoreError:
            if self._is_store_down():
                raise
            log.exception("event cannot be kept", job=event.job, action=event.action)
            message = "The event's content cannot be kept; see the trainer's log."
        except BackendError as error:
            log.warning("event refused", job=event.job, action=event.action, reason=error.message)
            message = error.message
        except Exception:  # one event must not hold up all others
            log.exception("event failed unexpectedly", job=event.job, action=event.action)
            message = "The event could not be understood; see the trainer's log."
        self._events.finish(event.job, EventState.FAILED, message=message)
        return None

    def _is_store_down(self) -> bool:
        try:
            self._events.queued(limit=1)
        except StoreError:
            return True
        return False

    def _work(self, event: Event, known: Sequence[ProjectKey]) -> ProjectKey | None:
        said = read_event(event.payload, heard_at=event.received_at)
        if said.project is None:
            self._done(event, "It names no project, so nothing follows from it.")
            return None
        project = self._key(said.project, event.origin, known)
        if self._fits is not None and self._fits.wants(event.action):
            self._fits.keep(event.job, project, self._note(said, project, event))
        elif isinstance(said, TrainingWanted) and self._planner is not None:
            self._train(event, said, project, self._planner)
        else:
            self._done(event, self._note(said, project, event))
        return project

    def _note(self, said: LabelStudioEvent, project: ProjectKey, event: Event) -> str:
        """Work an event into the ledger; return a sentence on what came of it."""
        match said:
            case AnnotationsSaved():
                tasks = {task.task_id: task for task in said.tasks}
                changed = sum(
                    self._ledger.record(project, one, tasks.get(one.task_id))
                    for one in said.annotations
                )
                sentence = f"{changed} of {len(said.annotations)} annotations are news."
            case AnnotationsDeleted():
                gone = self._ledger.remove(project, said.annotation_ids, at=event.received_at)
                sentence = f"{gone} of {len(said.annotation_ids)} annotations left."
            case TasksSaved():
                # thousands at an import; each comes again with its first annotation
                sentence = f"{len(said.tasks)} tasks count once somebody annotates them."
            case TasksDeleted():
                gone = self._ledger.remove_tasks(project, said.task_ids, at=event.received_at)
                sentence = f"{len(said.task_ids)} tasks left, {gone} annotations with them."
            case ProjectUpdated():
                sentence = "The project's settings were saved; its label config comes by /setup."
            case TrainingWanted():
                sentence = "A training is wanted."
            case _:
                sentence = "This kind of event means nothing here."
        return " ".join([sentence, *said.problems])

    def _train(
        self, event: Event, said: TrainingWanted, project: ProjectKey, planner: Planner
    ) -> None:
        if said.is_hint and said.project is not None:
            self._done(
                event,
                "Label Studio sends this by itself on every save or every Nth "
                f"(min_annotations_to_start_training is {said.project.trains_every}), so the "
                "training policy decides; set it to 0 to train with the Start Training button.",
            )
            return
        sessions = planner.request(project, Trigger.START_TRAINING)
        self._events.finish(
            event.job,
            EventState.DONE,
            message=f"{len(sessions)} training sessions are queued.",
            session=join_ids([session.id for session in sessions]),
        )

    def _done(self, event: Event, message: str) -> None:
        self._events.finish(event.job, EventState.DONE, message=message)

    def _key(
        self, project: EventProject, origin: str | None, known: Sequence[ProjectKey]
    ) -> ProjectKey:
        """Return the key of an event's project; `known` are all, the one seen last first.

        Events name no server but where `connect` put it into a header, and that may be another
        name of it than the one in /setup; the moment of the project's making tells them apart.
        """
        same = [
            key
            for key in known
            if key.project_id == project.id and project.created_at in (None, key.created_at)
        ]
        named = [key for key in same if key.origin == origin]
        if named or same:
            return (named or same)[0]
        return ProjectKey(
            origin=origin or self._label_studio_url or UNKNOWN_ORIGIN,
            project_id=project.id,
            created_at=project.created_at or 0,
        )
