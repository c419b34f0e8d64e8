"""What leads to `fit` of a toolkit class: which events wait for it, and in which session they do.

A session fits all events of a project that wait, in the order they came, and ends when there are
none; so at most one of a project runs, wherever the trainers are.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from ml_backend.domain import TOOLKIT, ProjectKey
from ml_backend.errors import BadRequest
from ml_backend.learning import Session, SessionState, TrainingParameters, Trigger
from ml_backend.service.ledger import EventLedger
from ml_backend.service.planning import Wishes
from ml_backend.store.events import START_TRAINING, Events
from ml_backend.store.projects import Projects
from ml_backend.store.releases import DEFAULT_PROJECT
from ml_backend.store.sessions import Sessions
from ml_backend.store.toolkit_values import ToolkitValues
from ml_backend.store.waiting_events import WaitingEvents

TRAIN_EVENTS = "train events"
"""The key, of no project, under which an engine keeps which events the class wants."""

USUAL_EVENTS = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATION_DELETED", START_TRAINING)
"""The events that the toolkit calls `fit` for."""

EVENTS_AT_ONCE = 20  # in memory: an event of many brush regions is megabytes
WAKE_AGAIN_S = 60.0  # a wake-up is lost with the worker that took it

log = structlog.get_logger(__name__)


class WantedEvents:
    """Keeps the events waiting that the class wants."""

    def __init__(self, waiting: WaitingEvents, values: ToolkitValues) -> None:
        self._waiting = waiting
        self._values = values

    def wants(self, action: str) -> bool:
        """Return whether `fit` is to be called for events of this kind.

        Raises:
            StoreError
        """
        kept = self._values.get(DEFAULT_PROJECT, TRAIN_EVENTS)
        return action in (USUAL_EVENTS if kept is None else json.loads(kept))

    def keep(self, job: str, project: ProjectKey, message: str) -> None:
        """Have an event wait.

        Raises:
            StoreError
        """
        self._waiting.keep(job, project, f"{message} It waits for fit().")


class ToolkitFits:
    """The trainer's standing work where a toolkit class is served."""

    def __init__(
        self,
        events: EventLedger,
        waiting: WaitingEvents,
        sessions: Sessions,
        *,
        wake: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep the collaborators.

        Args:
            events: Reads what comes, and has wait what the class wants.
            waiting: That.
            sessions: The records of sessions.
            wake: Puts a session's id on the queue; doing it twice does no harm.
            clock: Seconds since the epoch.
        """
        self._events = events
        self._waiting = waiting
        self._sessions = sessions
        self._wake = wake
        self._clock = clock
        self._not_before: dict[str, float] = {}  # by session: when it is woken up again

    def look(self) -> None:
        """Read what has come, ask for the sessions that are missing, and start what is queued.

        Raises:
            StoreError
        """
        while self._events.work(EVENTS_AT_ONCE).events == EVENTS_AT_ONCE:
            pass
        for project, newest in self._waiting.newest().items():
            self._see_to(project, newest)
        claimable = self._sessions.claimable()
        now = self._clock()
        for session in claimable:
            if now >= self._not_before.get(session.id, now):
                self._not_before[session.id] = now + WAKE_AGAIN_S
                self._wake(session.id)
        for session_id in self._not_before.keys() - {session.id for session in claimable}:
            del self._not_before[session_id]

    def _see_to(self, project: ProjectKey, newest: float) -> None:
        """Ask for a session, unless one is there or ended so that it has to be asked for."""
        last = self._sessions.newest(project, [TOOLKIT])
        if last is not None and last.finished_at is None:
            return
        if last is not None and last.finished_at is not None:
            if last.state is SessionState.STOPPED:
                self._give_up(project, last.finished_at)
            # what made it fail would only do so again
            if last.state is not SessionState.COMPLETED and newest <= last.finished_at:
                return
        first = self._waiting.next(project)
        if first is not None:
            asked = first.action == START_TRAINING
            self._sessions.request(
                project,
                controls=[TOOLKIT],
                trigger=Trigger.START_TRAINING if asked else Trigger.POLICY,
                parameters=TrainingParameters(),
            )

    def _give_up(self, project: ProjectKey, until: float) -> None:
        given_up = self._waiting.give_up(
            project, until=until, message="A person stopped the session that would have fitted it."
        )
        if given_up:
            log.info("events given up with a session", project=str(project), events=given_up)


class ToolkitPlanner:
    """Has `fit` called because a person asks for a training."""

    def __init__(
        self,
        projects: Projects,
        events: Events,
        waiting: WaitingEvents,
        sessions: Sessions,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._projects = projects
        self._events = events
        self._waiting = waiting
        self._sessions = sessions
        self._clock = clock

    def request(
        self,
        project: ProjectKey,
        trigger: Trigger,
        *,
        owner: str | None = None,
        wishes: Wishes | None = None,
    ) -> list[Session]:
        """Queue a session that calls `fit` with START_TRAINING, as Label Studio's button does.

        Raises:
            BadRequest: the project is unknown, or training parameters are wished for.
            StoreError
        """
        known = self._projects.get(project)
        if known is None:
            raise BadRequest(
                f"Project {project.project_id} is unknown here; connect it with `ml-backend "
                "connect`, then try again."
            )
        if wishes is not None and wishes.parameters:
            raise BadRequest(
                "A toolkit class trains as its fit() does; leave out "
                f"{', '.join(sorted(wishes.parameters))}, or set extra_params in Label Studio."
            )
        made = datetime.fromtimestamp(project.created_at, UTC).isoformat()
        payload = {
            "action": START_TRAINING,
            "project": {
                "id": project.project_id,
                "created_at": made,
                "label_config": known.label_config,
            },
            "asked_at": self._clock(),
        }
        job = self._events.record(
            action=START_TRAINING,
            payload=json.dumps(payload).encode(),
            origin=project.origin,
            project_id=project.project_id,
        )
        self._waiting.keep(job, project, "A person asked for it. It waits for fit().")
        return [
            self._sessions.request(
                project,
                controls=[TOOLKIT],
                trigger=trigger,
                parameters=TrainingParameters(),
                owner=owner,
                label=None if wishes is None else wishes.label,
            )
        ]
