"""Removes the folders of sessions that nobody will go on with."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import structlog

from ml_backend.learning import Session, SessionState
from ml_backend.training.folders import remove_folder

UNKNOWN_AFTER_S = 7 * 86_400.0

log = structlog.get_logger(__name__)


def remove_leftovers(
    sessions: Path,
    find: Callable[[str], Session | None],
    *,
    clock: Callable[[], float] = time.time,
) -> int:
    """Remove the folders of sessions that are completed or long unknown; return how many.

    Those of stopped and failed ones stay: they can be resumed from their checkpoint.

    Args:
        sessions: holds a folder for each session, named by its id.
        find: returns a session by its id, None if there is none.
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
            is_over = clock() - folder.stat().st_mtime > UNKNOWN_AFTER_S
        else:
            is_over = session.state is SessionState.COMPLETED
        if is_over:
            remove_folder(folder)
            removed += 1
            log.info("folder of a session removed", session=folder.name)
    return removed
