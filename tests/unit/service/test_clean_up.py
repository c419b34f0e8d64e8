"""Old predictions leave Label Studio, those that nobody can be working on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from ml_backend.domain import ProjectKey
from ml_backend.errors import Conflict
from ml_backend.labelstudio.stored_predictions import StoredPrediction, TaskVersions
from ml_backend.service.clean_up import CleanedUp, clean_up

PROJECT = ProjectKey(origin="http://ls.example", project_id=1, created_at=5)
DAY = 86_400.0
NOW = 1000 * DAY
LONG_AGO, LATELY = NOW - 90 * DAY, NOW - 2 * DAY
OLD, NEW = "cells-1-aaaaaaaa", "cells-2-bbbbbbbb"


@dataclass
class Shelf:
    """Label Studio's predictions of one task, number 7."""

    updated_at: float = LONG_AGO
    has_draft: bool = False
    rows: list[StoredPrediction] = field(
        default_factory=lambda: [
            StoredPrediction(id=1, version=OLD, created_at=LONG_AGO - DAY),
            StoredPrediction(id=2, version=NEW, created_at=LONG_AGO),
        ]
    )

    def tasks_with(self, project_id: int, version: str) -> Iterator[TaskVersions]:
        versions = frozenset(row.version for row in self.rows)
        if version in versions:
            yield TaskVersions(
                task_id=7, updated_at=self.updated_at, has_draft=self.has_draft, versions=versions
            )

    def of_task(self, task_id: int) -> list[StoredPrediction]:
        return list(self.rows)

    def delete(self, prediction_id: int) -> bool:
        before = len(self.rows)
        self.rows = [row for row in self.rows if row.id != prediction_id]
        return len(self.rows) < before


def clean(shelf: Shelf, **changes: Any) -> CleanedUp:
    given: dict[str, Any] = {
        "served": NEW,
        "served_since": LONG_AGO,
        "known": [NEW, OLD],
        "annotated_from": set(),
        "dry_run": False,
        "clock": lambda: NOW,
        **changes,
    }
    return clean_up(shelf, PROJECT, **given)


def left(shelf: Shelf) -> list[int]:
    return [row.id for row in shelf.rows]


def test_what_was_replaced_long_ago_is_removed() -> None:
    shelf = Shelf()

    cleaned = clean(shelf)

    assert left(shelf) == [2]
    assert cleaned == CleanedUp(removed=1, kept_open=0, kept_annotated=0)


def test_counting_removes_nothing() -> None:
    shelf = Shelf()

    cleaned = clean(shelf, dry_run=True)

    assert left(shelf) == [1, 2]
    assert cleaned.removed == 1
    assert "1 predictions of old versions would be removed" in cleaned.sentence(dry_run=True)


@pytest.mark.parametrize(
    "shelf",
    [
        pytest.param(Shelf(updated_at=LATELY), id="somebody touched the task"),
        pytest.param(Shelf(has_draft=True), id="somebody has a draft"),
        pytest.param(
            Shelf(rows=[StoredPrediction(id=1, version=OLD, created_at=LONG_AGO)]),
            id="nothing newer is shown",
        ),
        pytest.param(
            Shelf(
                rows=[
                    StoredPrediction(id=1, version=OLD, created_at=LONG_AGO),
                    StoredPrediction(id=2, version=NEW, created_at=LATELY),
                ]
            ),
            id="the new one is shown since yesterday only",
        ),
    ],
)
def test_what_an_open_page_may_hold_stays(shelf: Shelf) -> None:
    before = left(shelf)

    cleaned = clean(shelf)

    assert left(shelf) == before
    assert (cleaned.removed, cleaned.kept_open) == (0, 1)


def test_what_was_shown_until_a_rollback_lately_stays() -> None:
    shelf = Shelf()

    clean(shelf, served_since=LATELY)

    assert left(shelf) == [1, 2]


def test_what_an_annotation_came_from_stays() -> None:
    shelf = Shelf()

    cleaned = clean(shelf, annotated_from={1})

    assert left(shelf) == [1, 2]
    assert cleaned.kept_annotated == 1


def test_predictions_of_others_stay() -> None:
    shelf = Shelf()
    shelf.rows.append(StoredPrediction(id=3, version="imported by hand", created_at=LONG_AGO))
    shelf.rows[0] = replace(shelf.rows[0], version="another backend")

    clean(shelf)

    assert left(shelf) == [1, 2, 3]


def test_predictions_of_today_are_never_removed() -> None:
    with pytest.raises(Conflict, match="browser"):
        clean(Shelf(), older_than_days=0.5)
