"""Records with everything of the learning loop on them, and a Label Studio that is made up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from ml_backend.domain import Component, DefaultModels, ProjectKey
from ml_backend.errors import LabelStudioError
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.labelstudio.learning_options import read_learning_options
from ml_backend.labelstudio.project_calls import AnnotatedTask
from ml_backend.labelstudio.rows import ProjectInfo
from ml_backend.labelstudio.targets import subject_of, targets_of
from ml_backend.learning import (
    Annotation,
    LabelledTask,
    LearningOptions,
    Session,
    SessionState,
    Version,
    VersionState,
)
from ml_backend.service.learning_loop import LearningLoop
from ml_backend.service.ledger import EventLedger
from ml_backend.service.planning import Planner
from ml_backend.service.reconcile import Reconciler
from ml_backend.store.annotations import AnnotationLedger
from ml_backend.store.components import Components
from ml_backend.store.database import Database
from ml_backend.store.events import Event, Events
from ml_backend.store.projects import Projects
from ml_backend.store.sessions import Sessions
from ml_backend.store.versions import Versions
from tests.fakes import ManualClock

ORIGIN = "http://ls.example"
CREATED = "2026-11-20T23:01:21.057970Z"
KEY = ProjectKey(origin=ORIGIN, project_id=1, created_at=1_795_215_681)
START = 1_795_300_000.0
BASE = Component(
    name="nuclei-1",
    architecture="residual-unet",
    sha256="0" * 64,
    path="/models/nuclei-1.safetensors",
    licence="CC0-1.0",
)


def label_config(root: str = "", more: str = "") -> str:
    """Return a config with one polygon control."""
    return (
        f'<View {root}><Image name="image" value="$image"/>'
        '<PolygonLabels name="cells" toName="image"><Label value="Cell"/></PolygonLabels>'
        f"{more}</View>"
    )


@dataclass
class FakeLabelStudio:
    """The tasks and annotations of one project, read as the client reads them."""

    clock: ManualClock
    rows: dict[int, Annotation] = field(default_factory=dict)
    touched: dict[int, float] = field(default_factory=dict)  # task -> when anything happened
    created_at: int = KEY.created_at
    away: bool = False
    asked: list[str] = field(default_factory=list)

    def save(self, annotation_id: int, task_id: int, mark: str = "", **fields: Any) -> Annotation:
        """Make or change an annotation; return it."""
        self.touched[task_id] = self.clock()
        self.rows[annotation_id] = Annotation(
            task_id=task_id,
            annotation_id=annotation_id,
            updated_at=self.clock(),
            result=[{"id": "r", "from_name": "cells", "value": {"mark": mark}}],
            **fields,
        )
        return self.rows[annotation_id]

    def delete(self, annotation_id: int) -> None:
        """Delete an annotation."""
        self.touched[self.rows.pop(annotation_id).task_id] = self.clock()

    def delete_task(self, task_id: int) -> None:
        """Delete a task with all in it."""
        self.touched.pop(task_id)
        self.rows = {key: row for key, row in self.rows.items() if row.task_id != task_id}

    def now(self) -> float:
        """Return the time."""
        return self.clock()

    def project(self, project_id: int) -> ProjectInfo:
        """Return the one project."""
        if self.away:
            raise LabelStudioError("Label Studio does not answer.")
        return ProjectInfo(
            id=project_id,
            title="Cells",
            created_at=self.created_at,
            label_config="",
            model_version="",
            shows_predictions=True,
            task_count=len(self.touched),
            annotation_count=len(self._counted()),
        )

    def annotated_tasks(
        self, project_id: int, *, changed_since: float | None = None
    ) -> Iterator[AnnotatedTask]:
        """Yield tasks as the Data Manager filters them."""
        self.asked.append("all" if changed_since is None else "changed")
        for task_id, moment in sorted(self.touched.items()):
            count = sum(row.task_id == task_id for row in self._counted())
            if count > 0 if changed_since is None else moment > changed_since:
                yield AnnotatedTask(
                    task=LabelledTask(task_id=task_id, data={"image": f"/{task_id}.png"}),
                    annotations=count,
                )

    def annotations(self, task_id: int) -> list[Annotation]:
        """Return the annotations of a task."""
        self.asked.append(f"task {task_id}")
        return [row for row in self._counted() if row.task_id == task_id]

    def _counted(self) -> list[Annotation]:
        return [row for row in self.rows.values() if not row.cancelled]


@dataclass
class LearningDesk:
    """A trainer's standing work, on records of its own."""

    database: Database
    clock: ManualClock
    label_studio: FakeLabelStudio
    events: Events
    projects: Projects
    ledger: AnnotationLedger
    sessions: Sessions
    versions: Versions
    components: Components
    planner: Planner
    event_ledger: EventLedger
    reconciler: Reconciler
    loop: LearningLoop
    woken: list[str]
    has_credentials: bool = True

    def introduce(self, xml: str | None = None, key: ProjectKey = KEY) -> None:
        """Let Label Studio introduce the project."""
        self.projects.record(
            key, hostname=key.origin, access_token=None, label_config=xml or label_config()
        )

    def send(self, action: str, *, origin: str | None = ORIGIN, **fields: Any) -> str:
        """Record an event; return its job."""
        project: Mapping[str, Any] = fields.pop("project", {"id": 1, "created_at": CREATED})
        body = orjson.dumps({"action": action, "project": project, **fields})
        return self.events.record(action=action, payload=body, origin=origin, project_id=1)

    def annotate(self, task_id: int, mark: str = "", *, annotation_id: int | None = None) -> None:
        """Annotate a task in Label Studio, which tells us."""
        annotation = self.label_studio.save(annotation_id or 100 + task_id, task_id, mark)
        self.tell(annotation)

    def tell(self, annotation: Annotation) -> None:
        """Send the event of an annotation."""
        self.send(
            "ANNOTATION_UPDATED",
            annotation={
                "id": annotation.annotation_id,
                "task": annotation.task_id,
                "updated_at": _iso(annotation.updated_at),
                "was_cancelled": annotation.cancelled,
                "result": list(annotation.result),
            },
            task={"id": annotation.task_id, "data": {"image": f"/{annotation.task_id}.png"}},
        )

    def event(self, job: str) -> Event:
        """Return an event."""
        found = self.events.get(job)
        assert found is not None
        return found

    def listen(self) -> None:
        """Do what the first thread does in a round, late enough for the policy to be asked."""
        self.clock.forward(15)
        self.loop.listen()

    def start_sessions(self) -> None:
        """Do what the threads do that start sessions once their annotations were looked at."""
        self.loop.start_sessions()
        self.loop.look_for_sessions()
        self.loop.start_sessions()

    def run_next(
        self,
        state: SessionState = SessionState.COMPLETED,
        *,
        version: str | None = None,
        not_fetched: frozenset[int] = frozenset(),
    ) -> Session:
        """Be the trainer of the session that was woken last; return it as it ended."""
        lease = self.sessions.claim(self.woken[-1], owner="trainer", lease_s=600)
        assert lease is not None
        hashes = self.ledger.task_hashes(KEY)
        missing = {task: hashes.pop(task) for task in not_fetched}
        self.sessions.note(
            lease,
            manifest={"task_hashes": hashes, "not_fetched": missing, "subject": self.subject()},
        )
        if version is not None:
            self.versions.add(_version(version, self.woken[-1], self.clock()))
        self.sessions.finish(lease, state, message="done", version=version)
        self.clock.forward(1)
        ended = self.sessions.get(lease.session_id)
        assert ended is not None
        return ended

    def subject(self) -> str:
        """Return what the project's first network learns now, but for annotations."""
        project = self.projects.get(KEY)
        assert project is not None
        target = targets_of(parse_label_config(project.label_config))[0]
        options, _ = read_learning_options(project.label_config, LearningOptions())
        return subject_of(target, options)

    def all_sessions(self) -> list[Session]:
        """Return all sessions, the oldest first."""
        return self.sessions.find()[::-1]


def open_desk(folder: Path) -> LearningDesk:
    """Return a desk on new records in `folder`; the project is not introduced yet."""
    database = Database(f"sqlite:///{folder / 'records.sqlite3'}")
    database.migrate()
    clock = ManualClock(START)
    label_studio = FakeLabelStudio(clock)
    events, projects = Events(database, clock=clock), Projects(database, clock=clock)
    ledger, sessions = AnnotationLedger(database, clock=clock), Sessions(database, clock=clock)
    versions, components = Versions(database), Components(database)
    planner = Planner(
        models=DefaultModels(),
        defaults=LearningOptions(),
        parse=parse_label_config,
        projects=projects,
        ledger=ledger,
        sessions=sessions,
        versions=versions,
        components=components,
        clock=clock,
    )
    event_ledger = EventLedger(events, projects, ledger, planner)
    woken: list[str] = []
    reconciler = Reconciler(
        ledger,
        lambda _: label_studio if desk.has_credentials else None,
        has_backlog=events.has_queued,
        clock=clock,
    )
    desk = LearningDesk(
        database=database,
        clock=clock,
        label_studio=label_studio,
        events=events,
        projects=projects,
        ledger=ledger,
        sessions=sessions,
        versions=versions,
        components=components,
        planner=planner,
        event_ledger=event_ledger,
        reconciler=reconciler,
        loop=LearningLoop(
            events=event_ledger,
            planner=planner,
            reconciler=reconciler,
            ledger=ledger,
            projects=projects,
            sessions=sessions,
            wake=woken.append,
            clock=clock,
            every_s=0.02,
        ),
        woken=woken,
    )
    components.record("auto", BASE, device="cpu")
    return desk


def _version(name: str, session_id: str, now: float) -> Version:
    return Version(
        project=KEY,
        name=name,
        state=VersionState.CANDIDATE,
        controls=("cells",),
        component=BASE,
        session_id=session_id,
        parent=BASE.name,
        created_at=now,
        metrics={},
    )


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
