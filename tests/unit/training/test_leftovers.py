"""Which session folders are removed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ml_backend.learning import Session, SessionState
from ml_backend.training import segmentation
from ml_backend.training.folders import DATASET, PREPARED
from ml_backend.training.leftovers import (
    GIVEN_UP_AFTER_S,
    UNKNOWN_AFTER_S,
    remove_leftovers,
)
from tests.unit.training.sessions import SESSION

NOW = 2_000_000_000.0


def left(
    sessions: Path, session: Session | None, *, age_s: float = 0, deleted: tuple[str, ...] = ()
) -> bool:
    """Return whether the folder of a session is there after a look for leftovers."""
    folder = sessions / "s"
    folder.mkdir(parents=True)
    (folder / "last").write_text("checkpoint")
    os.utime(folder, (NOW - age_s, NOW - age_s))
    remove_leftovers(
        sessions,
        lambda _: session,
        lambda _: [],
        was_deleted=lambda name: name in deleted,
        clock=lambda: NOW,
    )
    return folder.exists()


@pytest.mark.parametrize("state", [state for state in SessionState if state != "completed"])
def test_a_session_that_may_go_on_keeps_its_checkpoint(tmp_path: Path, state: SessionState) -> None:
    recent = replace(SESSION, state=state, finished_at=NOW - GIVEN_UP_AFTER_S + 60)
    assert left(tmp_path / "sessions", recent, age_s=1e8)


def test_one_that_is_completed_loses_its_folder(tmp_path: Path) -> None:
    assert not left(tmp_path / "sessions", replace(SESSION, state=SessionState.COMPLETED))


def test_one_that_nobody_knows_goes_after_a_while(tmp_path: Path) -> None:
    assert left(tmp_path / "a", None, age_s=UNKNOWN_AFTER_S - 60)
    assert not left(tmp_path / "b", None, age_s=UNKNOWN_AFTER_S + 60)


def test_one_that_a_person_has_deleted_goes_at_once(tmp_path: Path) -> None:
    assert not left(tmp_path / "a", None, deleted=("s",))
    assert left(tmp_path / "b", None, deleted=("t",))


def test_no_folder_at_all_is_fine(tmp_path: Path) -> None:
    none = tmp_path / "none"
    assert remove_leftovers(none, lambda _: None, lambda _: [], was_deleted=lambda _: False) == 0


@pytest.mark.parametrize(
    ("state", "stays"),
    [
        (SessionState.FAILED, False),
        (SessionState.STOPPED, False),
        (SessionState.QUEUED, True),
        (SessionState.RUNNING, True),
    ],
)
def test_one_that_nobody_has_resumed_for_a_month_goes(
    tmp_path: Path, state: SessionState, stays: bool
) -> None:
    old = replace(SESSION, state=state, finished_at=NOW - GIVEN_UP_AFTER_S - 60)
    assert left(tmp_path / "sessions", old) is stays


@pytest.mark.parametrize(
    ("other", "images_stay"),
    [
        ({}, False),
        ({"finished_at": NOW - 200}, True),  # it completed before
        ({"controls": ("cells", "others")}, True),
    ],
)
@pytest.mark.parametrize("state", [SessionState.FAILED, SessionState.STOPPED])
def test_a_later_one_that_completed_takes_the_images_and_leaves_the_checkpoint(
    tmp_path: Path, state: SessionState, other: dict[str, Any], images_stay: bool
) -> None:
    session = replace(SESSION, state=state, finished_at=NOW - 100)
    completed = replace(SESSION, id="t", state=SessionState.COMPLETED, finished_at=NOW - 10)
    for name in (DATASET, PREPARED):
        (tmp_path / "s" / name).mkdir(parents=True)
    (tmp_path / "s" / "last").write_text("checkpoint")

    def look() -> int:
        return remove_leftovers(
            tmp_path,
            lambda _: session,
            lambda project: [replace(completed, **other)] if project == SESSION.project else [],
            was_deleted=lambda _: False,
            clock=lambda: NOW,
        )

    assert look() == (0 if images_stay else 1)
    assert look() == 0
    left_there = {path.name for path in (tmp_path / "s").iterdir()}
    assert left_there == ({"last", DATASET, PREPARED} if images_stay else {"last"})


def test_the_training_keeps_its_images_where_they_are_looked_for() -> None:
    assert segmentation.PREPARED == PREPARED
