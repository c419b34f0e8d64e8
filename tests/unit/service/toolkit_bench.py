"""A toolkit class of a test's own, on real records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_backend.domain import TOOLKIT, Component, ProjectKey, Release
from ml_backend.hosting import ports
from ml_backend.hosting.instances import Instances
from ml_backend.hosting.loading import ToolkitClass
from ml_backend.hosting.ports import Ports, plug_in, project_of
from ml_backend.service.toolkit_releasing import ToolkitReleasing
from ml_backend.store.components import Components
from ml_backend.store.database import Database
from ml_backend.store.events import Event, Events
from ml_backend.store.projects import Projects
from ml_backend.store.releases import Releases
from ml_backend.store.toolkit_values import ToolkitValues
from ml_backend.store.waiting_events import WaitingEvents
from tests.fakes import ManualClock

KEY = ProjectKey(origin="http://ls.example", project_id=1, created_at=1_795_215_681)
CREATED = "2026-11-20T23:01:21.057970Z"
CONFIG = (
    '<View><Text name="text" value="$text"/><Choices name="mood" toName="text">'
    '<Choice value="good"/><Choice value="bad"/></Choices></View>'
)
REQUESTED = "toolkit:model.py"
SOURCE = Component(
    name="Mood", architecture=TOOLKIT, sha256="5" * 64, path="/m/model.py", licence="unknown"
)
TRAIN_EVENTS = ("ANNOTATION_CREATED", "START_TRAINING")


class Mood:
    """Reads moods; a test replaces what it does."""

    calls: list[Any]

    def __init__(self, project_id: str, label_config: str) -> None:
        self.project_id, self.label_config = project_id, label_config
        self.setup()

    def setup(self) -> None:
        """Nothing."""

    def get(self, key: str) -> str | None:
        return ports.ports().values.get(project_of(self), key)

    def set(self, key: str, value: str) -> None:
        ports.ports().values.set(project_of(self), key, value)

    def predict(self, tasks: Any, context: Any = None, **_: Any) -> Any:
        self.calls.append((tasks, context))
        return [{"result": [mood("good")], "score": 0.5} for _ in tasks]

    def fit(self, event: str, data: Any, **_: Any) -> Any:
        self.calls.append((event, data))


def mood(choice: str) -> dict[str, Any]:
    """Return a region."""
    return {
        "from_name": "mood",
        "to_name": "text",
        "type": "choices",
        "value": {"choices": [choice]},
    }


@dataclass
class ToolkitBench:
    """Everything around the class."""

    database: Database
    clock: ManualClock
    model: type[Mood]
    toolkit_class: ToolkitClass
    values: ToolkitValues
    releasing: ToolkitReleasing
    instances: Instances
    events: Events
    waiting: WaitingEvents
    projects: Projects
    more: dict[str, Any] = field(default_factory=dict)

    def introduce(self, key: ProjectKey = KEY) -> Release:
        """Do what an engine's start and /setup do; return what is served."""
        self.releasing.components.record(REQUESTED, SOURCE, device=TOOLKIT)
        self.projects.record(key, hostname=key.origin, access_token=None, label_config=CONFIG)
        return self.releasing.activate(key, CONFIG).release

    def send(self, action: str, project: int = 1, **content: Any) -> str:
        """Record a webhook; return its job."""
        described = {"id": project, "created_at": CREATED, "label_config": CONFIG}
        body = {"action": action, "project": described, **content}
        return self.events.record(
            action=action, payload=json.dumps(body).encode(), project_id=project
        )

    def event(self, job: str) -> Event:
        """Return an event."""
        found = self.events.get(job)
        assert found is not None
        return found


@contextmanager
def open_toolkit_bench(folder: Path) -> Iterator[ToolkitBench]:
    """Yield the class on empty records."""
    database = Database(f"sqlite:///{folder / 'records.sqlite3'}")
    database.migrate()
    clock = ManualClock()
    values = ToolkitValues(database, clock=clock)
    model = type("Mood", (Mood,), {"calls": []})
    toolkit_class = ToolkitClass(
        name="Mood",
        type=model,
        path=Path(__file__).resolve(),
        sha256=SOURCE.sha256,
        train_events=TRAIN_EVENTS,
    )
    plugged = list(ports._plugged)
    plug_in(Ports(values=values, fetch=lambda _project, address, _task: Path(address)))
    try:
        yield ToolkitBench(
            database=database,
            clock=clock,
            model=model,
            toolkit_class=toolkit_class,
            values=values,
            releasing=ToolkitReleasing(
                requested=REQUESTED,
                revision="1",
                components=Components(database, clock=clock),
                values=values,
                releases=Releases(database, clock=clock),
            ),
            instances=Instances(toolkit_class, values, most=3),
            events=Events(database, clock=clock),
            waiting=WaitingEvents(database),
            projects=Projects(database, clock=clock),
        )
    finally:
        ports._plugged[:] = plugged
        database.close()
