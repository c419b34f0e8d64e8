"""Predictions are stored before they are shown: bounded, once each, and never in the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml_backend.domain import LabelStudioAccess, Prediction, ProjectKey, Release, Task
from ml_backend.errors import LabelStudioError
from ml_backend.service.ahead import CHUNK, Ahead, Stocked
from ml_backend.service.predictions import PredictionRequest
from ml_backend.store.database import Database
from ml_backend.store.deliveries import Deliveries
from ml_backend.store.prediction_rows import PredictionKey
from ml_backend.store.predictions import KeptPredictions
from tests.fake_rows import FakeRows
from tests.fakes import ManualClock
from tests.unit.service.conftest import COMPONENT, CONFIG, Bench

PROJECT = ProjectKey(origin="http://ls.example", project_id=1, created_at=5)
NEW = Release(version="fake-2-bbbbbbbb", components={"cells": COMPONENT}, label_config=CONFIG)
ACCESS = LabelStudioAccess(origin=None)


class Predicting:
    """Predicts what it is asked for but for some, and keeps it as the service does."""

    def __init__(self, database: Database, clock: ManualClock) -> None:
        self.kept = KeptPredictions(database)
        self.clock = clock
        self.asked: list[list[int]] = []
        self.unreadable: set[int] = set()
        self.seconds_each = 0.0

    def predict_ahead(self, request: PredictionRequest) -> dict[PredictionKey, Prediction]:
        self.asked.append([task.id for task in request.tasks])
        found = {}
        for task in request.tasks:
            self.clock.forward(self.seconds_each)
            if task.id in self.unreadable:
                continue
            key = request.key(task)
            found[key] = Prediction(result=[], score=0.5, model_version=request.release.version)
            self.kept.claim(key, "engine", lease_s=60)
            self.kept.complete(key, "engine", found[key])
        return found


class Stock:
    """What a test of predicting ahead needs."""

    def __init__(self, database: Database, tasks: int) -> None:
        self.clock = ManualClock()
        self.deliveries = Deliveries(database)
        self.predicting = Predicting(database, self.clock)
        self.rows = FakeRows(
            key=PROJECT,
            version="fake-1-aaaaaaaa",
            setup=lambda url: NEW.version,
            tasks=[Task(id=n, data={"image": f"{n}.png"}) for n in range(1, tasks + 1)],
        )

    def fill(self, *, most_tasks: int = 500, most_seconds: float = 60.0) -> Stocked:
        ahead = Ahead(
            predictions=self.predicting,
            deliveries=self.deliveries,
            most_tasks=most_tasks,
            most_seconds=most_seconds,
            clock=self.clock,
        )
        return ahead.stock(self.rows, PROJECT, NEW, ACCESS)

    def held(self) -> list[int]:
        return sorted(task for task, version in self.rows.predictions if version == NEW.version)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    database.migrate()
    return database


def test_every_open_task_gets_one_prediction(database: Database) -> None:
    stock = Stock(database, 2 * CHUNK + 1)
    stock.rows.annotated = {1}

    stocked = stock.fill()

    assert stock.held() == list(range(2, 2 * CHUNK + 2))
    assert stocked == Stocked(wanted=2 * CHUNK, held=2 * CHUNK, refused=0)


def test_a_second_time_adds_nothing(database: Database) -> None:
    stock = Stock(database, 3)
    stock.fill()

    stocked = stock.fill()

    assert stock.held() == [1, 2, 3]
    assert stocked.held == 3
    assert len(stock.predicting.asked) == 1


def test_what_was_stored_ahead_is_not_delivered_again(database: Database) -> None:
    stock = Stock(database, 3)

    stock.fill()

    assert stock.deliveries.due(str(PROJECT), NEW.version, limit=10) == []


def test_no_more_tasks_are_predicted_than_allowed(database: Database) -> None:
    stock = Stock(database, 10)

    assert stock.fill(most_tasks=4).held == 4
    assert stock.held() == [1, 2, 3, 4]


def test_it_ends_when_its_time_is_up(database: Database) -> None:
    stock = Stock(database, 3 * CHUNK)
    stock.predicting.seconds_each = 1.0

    stock.fill(most_seconds=CHUNK + 1.0)

    assert stock.held() == list(range(1, 2 * CHUNK + 1))


def test_an_image_that_cannot_be_read_holds_up_nobody(database: Database) -> None:
    stock = Stock(database, 3)
    stock.predicting.unreadable = {2}

    stocked = stock.fill()

    assert stock.held() == [1, 3]
    assert (stocked.wanted, stocked.held) == (3, 2)


def test_predictions_that_label_studio_drops_are_counted(database: Database) -> None:
    stock = Stock(database, 3)
    stock.rows.invalid = {2}

    stocked = stock.fill()

    assert stocked == Stocked(wanted=3, held=2, refused=1)
    assert "dropped 1 as invalid" in stocked.sentence()


def test_a_task_that_is_deleted_meanwhile_is_not_sent(database: Database) -> None:
    stock = Stock(database, 3)
    real = stock.predicting.predict_ahead

    def deleted_meanwhile(request: PredictionRequest) -> dict[PredictionKey, Prediction]:
        stock.rows.tasks = stock.rows.tasks[1:]
        return real(request)

    stock.predicting.predict_ahead = deleted_meanwhile  # type: ignore[method-assign]
    stock.fill()

    assert stock.held() == [2, 3]


def test_a_label_studio_that_is_away_is_an_error(database: Database) -> None:
    stock = Stock(database, 3)
    stock.rows.failures = [LabelStudioError("It is away.")]

    with pytest.raises(LabelStudioError):
        stock.fill()


def test_who_waits_goes_before_what_is_predicted_ahead(bench: Bench) -> None:
    bench.segmenter.gate.set()

    found = bench.service.predict_ahead(bench.request({1: "a.png", 2: "missing.png"}))

    assert [key.task_id for key in found] == [1]
    due = bench.deliveries.due(
        str(bench.request({}).project), found.popitem()[1].model_version, limit=5
    )
    assert [key.task_id for key, _ in due] == [1]  # nobody has delivered it
    assert {str(priority) for _, priority in bench.segmenter.seen} == {"20"}
