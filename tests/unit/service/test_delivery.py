"""Pushing what was finished too late, and never a second row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ml_backend.domain import Prediction, ProjectKey, Release
from ml_backend.errors import LabelStudioError
from ml_backend.labelstudio.rows import ProjectInfo
from ml_backend.service.delivery import Delivery
from ml_backend.store.database import Database
from ml_backend.store.deliveries import Deliveries
from ml_backend.store.open_requests import OpenRequests
from ml_backend.store.predictions import KeptPredictions, PredictionKey
from ml_backend.store.projects import Projects
from ml_backend.store.releases import Releases
from tests.unit.service.conftest import COMPONENT, CONFIG, PROJECT


@dataclass
class FakeLabelStudio:
    """Holds predictions by task id; refuses everything while it is away."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    away: bool = False
    gone: set[int] = field(default_factory=set)  # deleted tasks
    created_at: int = PROJECT.created_at

    def project(self, project_id: int) -> ProjectInfo:
        return ProjectInfo(
            id=project_id,
            title="Cells",
            created_at=self.created_at,
            label_config=CONFIG,
            model_version="",
            shows_predictions=True,
            task_count=1,
        )

    def existing_tasks(self, project_id: int, task_ids: Iterable[int]) -> set[int]:
        return set(task_ids) - self.gone

    def tasks_with_prediction(
        self, project_id: int, task_ids: Iterable[int], version: str
    ) -> set[int]:
        if self.away:
            raise LabelStudioError("Label Studio does not answer.")
        held = {row["task"] for row in self.rows if row["model_version"] == version}
        return held & set(task_ids)

    def import_predictions(self, project_id: int, items: Sequence[tuple[int, Prediction]]) -> int:
        assert not self.gone & {task_id for task_id, _ in items}  # it would refuse the whole list
        new = [{"task": task_id, **prediction.to_json()} for task_id, prediction in items]
        self.rows += new
        return len(new)


@dataclass
class Desk:
    """A delivery with everything it looks at."""

    kept: KeptPredictions
    open_requests: OpenRequests
    release: Release
    label_studio: FakeLabelStudio
    delivery: Delivery

    def keep(self, *task_ids: int, version: str | None = None) -> None:
        for task_id in task_ids:
            key = PredictionKey(
                project=str(PROJECT),
                task_id=task_id,
                version=version or self.release.version,
                input_hash="x",
            )
            self.kept.claim(key, "engine", lease_s=60)
            prediction = Prediction(result=[], score=0.0, model_version=key.version)
            assert self.kept.complete(key, "engine", prediction)

    def delivered(self) -> list[int]:
        return [row["task"] for row in self.label_studio.rows]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    database.migrate()
    projects, releases = Projects(database), Releases(database)
    projects.record(PROJECT, hostname=None, access_token=None, label_config=CONFIG)
    release = releases.ensure(
        PROJECT,
        components={"cells": COMPONENT},
        canonical_config={},
        label_config=CONFIG,
        revision="1",
    )
    releases.activate(PROJECT, release.version)
    kept, open_requests = KeptPredictions(database), OpenRequests(database)
    label_studio = FakeLabelStudio()

    def sink(project: ProjectKey) -> FakeLabelStudio:
        return label_studio

    return Desk(
        kept=kept,
        open_requests=open_requests,
        release=release,
        label_studio=label_studio,
        delivery=Delivery(Deliveries(database), open_requests, projects, releases, sink),
    )


def test_what_was_finished_late_is_pushed_once(desk: Desk) -> None:
    desk.keep(1, 2)

    first = desk.delivery.deliver(PROJECT)
    second = desk.delivery.deliver(PROJECT)

    assert (first, second) == (2, 0)
    assert desk.delivered() == [1, 2]


def test_a_task_that_holds_this_version_gets_no_second_row(desk: Desk) -> None:
    desk.label_studio.rows.append({"task": 1, "model_version": desk.release.version})
    desk.keep(1, 2)

    desk.delivery.deliver(PROJECT)

    assert desk.delivered() == [1, 2]  # the row of task 1 is the one it had


def test_a_task_in_an_open_request_is_left_to_that_request(desk: Desk) -> None:
    desk.keep(1, 2)
    request = desk.open_requests.open(str(PROJECT), desk.release.version, [1], expires_s=60)

    desk.delivery.deliver(PROJECT)
    while_open = desk.delivered()
    desk.open_requests.close(request)
    desk.delivery.deliver(PROJECT)

    assert while_open == [2]
    assert desk.delivered() == [2, 1]


def test_a_version_that_is_served_no_more_is_not_pushed(desk: Desk) -> None:
    desk.keep(1, version="fake-1-older000")

    assert desk.delivery.deliver(PROJECT) == 0
    assert desk.delivered() == []


def test_a_deleted_task_does_not_hold_up_the_others(desk: Desk) -> None:
    desk.label_studio.gone = {1}
    desk.keep(1, 2)

    desk.delivery.deliver(PROJECT)

    assert desk.delivered() == [2]


def test_a_project_that_was_made_again_gets_nothing_of_its_predecessor(desk: Desk) -> None:
    desk.label_studio.created_at += 1
    desk.keep(1)

    assert desk.delivery.deliver(PROJECT) == 0
    assert desk.delivered() == []


def test_nothing_is_lost_while_label_studio_is_away(desk: Desk) -> None:
    desk.keep(1)
    desk.label_studio.away = True
    with pytest.raises(LabelStudioError):
        desk.delivery.deliver(PROJECT)

    desk.label_studio.away = False
    desk.delivery.deliver(PROJECT)

    assert desk.delivered() == [1]
