"""Which session folders are removed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ml_backend.learning import Session, SessionState
from ml_backend.training.leftovers import UNKNOWN_AFTER_S, remove_leftovers
from tests.unit.training.sessions import SESSION

NOW = 2_000_000_000.0


def left(sessions: Path, session: Session | None, *, age_s: float = 0) -> bool:
    """Return whether the folder of a session is there after a look for leftovers."""
    folder = sessions / "s"
    folder.mkdir(parents=True)
    (folder / "last").write_text("checkpoint")
    os.utime(folder, (NOW - age_s, NOW - age_s))
    remove_leftovers(sessions, lambda _: session, clock=lambda: NOW)
    return folder.exists()


@pytest.mark.parametrize("state", [state for state in SessionState if state != "completed"])
def test_a_session_that_may_go_on_keeps_its_checkpoint(tmp_path: Path, state: SessionState) -> None:
    assert left(tmp_path / "sessions", replace(SESSION, state=state), age_s=1e8)


def test_one_that_is_completed_loses_its_folder(tmp_path: Path) -> None:
    assert not left(tmp_path / "sessions", replace(SESSION, state=SessionState.COMPLETED))


def test_one_that_nobody_knows_goes_after_a_while(tmp_path: Path) -> None:
    assert left(tmp_path / "a", None, age_s=UNKNOWN_AFTER_S - 60)
    assert not left(tmp_path / "b", None, age_s=UNKNOWN_AFTER_S + 60)


def test_no_folder_at_all_is_fine(tmp_path: Path) -> None:
    assert remove_leftovers(tmp_path / "none", lambda _: None) == 0
