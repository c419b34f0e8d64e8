"""Removes the folders of sessions that nobody will go on with."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from ml_backend.domain import ProjectKey
from ml_backend.learning import Session, SessionState
from ml_backend.model_files.folders import remove_folder
from ml_backend.training.folders import DATASET, PREPARED

UNKNOWN_AFTER_S = 7 * 86_400.0
GIVEN_UP_AFTER_S = 30 * 86_400.0  # a stopped or failed session that nobody has resumed

log = structlog.get_logger(__name__)


def remove_leftovers(
    sessions: Path,
    find: Callable[[str], Session | None],
    find_completed: Callable[[ProjectKey], Sequence[Session]],
    *,
    was_deleted: Callable[[str], bool],
    clock: Callable[[], float] = time.time,
) -> int:
    """Remove what lies in the folders of sessions and is of no use; return of how many.

    Completed ones lose their folder, and those that a person has deleted; those that the records
    know nothing of lose it after a week. Stopped and failed ones can be resumed from their
    checkpoint, so they keep it for a month; but their images leave as soon as a later session of
    the same controls has completed. One that is resumed all the same settles anew what it learns
    from.

    Args:
        sessions: holds a folder for each session, named by its id.
        find: returns a session by its id, None if there is none.
        find_completed: returns the newest completed sessions of a project.
        was_deleted: returns whether a person has deleted the session of that id.
        clock: seconds since the epoch.

    Raises:
        StoreError
    """
    removed = 0
    folders = [path for path in sessions.iterdir() if path.is_dir()] if sessions.is_dir() else []
    for folder in folders:
        session = find(folder.name)
        if session is None:
            # the records may be others for an hour, by a mistake in DATABASE_URL
            age_s = clock() - folder.stat().st_mtime
            is_over = age_s > UNKNOWN_AFTER_S or was_deleted(folder.name)
        else:
            is_over = session.state is SessionState.COMPLETED or _is_given_up(session, clock())
        if is_over:
            gone = [folder]
        elif session is not None and _is_idle(session):
            gone = [folder / name for name in (DATASET, PREPARED) if (folder / name).is_dir()]
            if gone and not _is_followed(session, find_completed(session.project)):
                gone = []
        else:
            gone = []
        for path in gone:
            remove_folder(path)
            log.info("leftover of a session removed", session=folder.name, path=str(path))
        removed += bool(gone)
    return removed


def _is_idle(session: Session) -> bool:
    return session.state in (SessionState.FAILED, SessionState.STOPPED)


def _is_given_up(session: Session, now: float) -> bool:
    return _is_idle(session) and now - _ended_at(session) > GIVEN_UP_AFTER_S


def _is_followed(session: Session, completed: Sequence[Session]) -> bool:
    """Return whether a session of the same controls completed after this one ended."""
    return any(
        set(other.controls) == set(session.controls) and _ended_at(other) > _ended_at(session)
        for other in completed
    )


def _ended_at(session: Session) -> float:
    return session.created_at if session.finished_at is None else session.finished_at
