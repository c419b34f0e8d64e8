"""The ledger equals Label Studio's annotations, also when events are lost on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ml_backend.domain import DefaultModels, ProjectKey
from ml_backend.labelstudio.annotation_rows import read_time
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.learning import LearningOptions
from ml_backend.service.ledger import EventLedger
from ml_backend.service.planning import Planner
from ml_backend.service.reconcile import Reconciler
from ml_backend.store.annotations import AnnotationLedger
from ml_backend.store.components import Components
from ml_backend.store.database import Database
from ml_backend.store.events import Events
from ml_backend.store.projects import Projects
from ml_backend.store.sessions import Sessions
from ml_backend.store.versions import Versions
from tests.e2e.site import Site, write_nuclei

pytestmark = pytest.mark.e2e

ARRIVES_WITHIN_S = 60.0
SIDE = 64

Rows = set[tuple[int, int, float, str]]  # annotation, task, updated_at, what was drawn


def polygon(mark: str) -> list[dict[str, Any]]:
    """Return a result with one region."""
    return [
        {
            "id": mark,
            "from_name": "cells",
            "to_name": "image",
            "type": "polygonlabels",
            "original_width": SIDE,
            "original_height": SIDE,
            "image_rotation": 0,
            "value": {
                "points": [[10, 10], [40, 10], [40, 40]],
                "closed": True,
                "polygonlabels": ["Cell"],
            },
        }
    ]


class Desk:
    """A project's annotations as Label Studio has them and as the ledger does."""

    def __init__(self, site: Site, database: Database, project: int) -> None:
        self.site = site
        self.project = project
        projects = Projects(database)
        (found,) = [one for one in projects.all() if one.key.project_id == project]
        self.key: ProjectKey = found.key
        self.events = Events(database)
        self.ledger = AnnotationLedger(database)
        planner = Planner(
            models=DefaultModels(),
            defaults=LearningOptions(),
            parse=parse_label_config,
            projects=projects,
            ledger=self.ledger,
            sessions=Sessions(database),
            versions=Versions(database),
            components=Components(database),
        )
        # the trainer does the same meanwhile; twice is as good as once
        self.event_ledger = EventLedger(self.events, projects, self.ledger, planner)
        self.reconciler = Reconciler(self.ledger, lambda _: site.client)

    def theirs(self) -> Rows:
        """Return what Label Studio has."""
        return {
            (row["id"], task, read_time(row["updated_at"]) or 0.0, _marks(row["result"]))
            for task in self.site.user.task_ids(self.project)
            for row in self.site.user.ask("GET", f"/api/tasks/{task}/annotations/")
        }

    def ours(self) -> Rows:
        """Return what the ledger has."""
        return {
            (one.annotation_id, one.task_id, one.updated_at, _marks(one.result))
            for one in self.ledger.counted(self.key)
        }

    def wait(self, is_so: Callable[[], bool]) -> bool:
        """Work on events until something is so; return whether it is."""
        deadline = time.monotonic() + ARRIVES_WITHIN_S
        while time.monotonic() < deadline:
            self.event_ledger.work()
            if is_so():
                return True
            time.sleep(0.2)
        return False

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """Lose the events of everything that happens meanwhile."""
        hooks = self.site.client.webhooks(self.project)
        for hook in hooks:
            self._switch(hook.id, on=False)
        yield
        for hook in hooks:
            self._switch(hook.id, on=True)

    def _switch(self, hook: int, *, on: bool) -> None:
        fields = {"is_active": on, "send_for_all_actions": True, "actions": []}
        self.site.user.ask("PATCH", f"/api/webhooks/{hook}/", json=fields)


def _marks(result: Sequence[Any]) -> str:
    return ",".join(str(region["id"]) for region in result)


@pytest.fixture
def desk(either_site: Site, tmp_path: Path) -> Iterator[Desk]:
    """A connected project of six images."""
    site = either_site
    project = site.make_project(write_nuclei(tmp_path, 6, side=SIDE))
    site.connect(project)
    database = Database(f"sqlite:///{site.backend.data_dir / 'records.sqlite3'}")
    with closing(database):
        yield Desk(site, database, project)


def annotate_everything(desk: Desk) -> None:
    """Create, change, delete and skip annotations, one at a time and many at once."""
    user, tasks = desk.site.user, desk.site.user.task_ids(desk.project)
    made = [user.submit(task, polygon(f"first-{task}"))["id"] for task in tasks[:4]]
    user.submit(tasks[0], polygon("of another person"))
    user.submit(tasks[4], [], was_cancelled=True)
    user.submit(tasks[5], [])
    user.ask("PATCH", f"/api/annotations/{made[0]}/", json={"result": polygon("changed")})
    user.ask("PATCH", f"/api/annotations/{made[1]}/", json={"was_cancelled": True})
    user.ask("PATCH", f"/api/annotations/{made[3]}/", json={"ground_truth": True})
    user.delete_annotation(made[2])


def test_events_alone_make_the_ledger_equal(desk: Desk) -> None:
    annotate_everything(desk)

    assert desk.wait(lambda: desk.ours() == desk.theirs())
    assert len(desk.theirs()) == 4


def test_what_was_lost_is_found_by_asking(desk: Desk) -> None:
    user, tasks = desk.site.user, desk.site.user.task_ids(desk.project)
    heard = user.submit(tasks[3], polygon("heard"))
    user.submit(tasks[4], polygon("stays"))
    assert desk.wait(lambda: desk.ours() == desk.theirs())
    desk.reconciler.try_to_reconcile(desk.key)
    with desk.deaf():
        user.delete_annotation(heard["id"])
        annotate_everything(desk)
        user.ask("DELETE", f"/api/tasks/{tasks[5]}/")

    desk.reconciler.try_to_reconcile(desk.key)

    assert desk.ours() == desk.theirs()
    assert "heard" not in {marks for *_, marks in desk.ours()}
    user.submit(tasks[3], polygon("heard again"))
    assert desk.wait(lambda: desk.ours() == desk.theirs())


def test_a_first_look_finds_all_that_was_annotated_before_we_were_connected(
    either_site: Site, tmp_path: Path
) -> None:
    site = either_site
    project = site.make_project(write_nuclei(tmp_path, 3, side=SIDE))
    for task in site.user.task_ids(project):
        site.user.submit(task, polygon(f"early-{task}"))
    site.connect(project)
    database = Database(f"sqlite:///{site.backend.data_dir / 'records.sqlite3'}")
    with closing(database):
        desk = Desk(site, database, project)

        desk.reconciler.try_to_reconcile(desk.key)

        assert desk.ours() == desk.theirs()
        assert len(desk.ours()) == 3
