"""A training session under its lease, in the process that it has for itself.

The network libraries take seconds to import, so that happens under heartbeats.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from ml_backend.bootstrap.records import open_database
from ml_backend.domain import TOOLKIT
from ml_backend.errors import SessionLost
from ml_backend.learning import Lease, Session, SessionState
from ml_backend.model_files.folders import remove_folder
from ml_backend.processes.heartbeats import EXIT_LOST, Heartbeats
from ml_backend.processes.training_child import EXIT_GIVEN_BACK
from ml_backend.settings import Settings
from ml_backend.store.database import Database
from ml_backend.store.sessions import Sessions
from ml_backend.training.interruption import Interrupted, Interruption
from ml_backend.training.outcome import Outcome, guarded

log = structlog.get_logger(__name__)


def sessions_folder(settings: Settings) -> Path:
    """Return where each session has a folder of its own."""
    return settings.data_dir / "sessions"


def models_folder(settings: Settings) -> Path:
    """Return where each project has a folder for its versions."""
    return settings.data_dir / "models"


def run_session(
    settings: Settings,
    lease: Lease,
    interruption: Interruption,
    *,
    listener: Callable[[Mapping[str, Any]], None] = lambda _progress: None,
) -> int:
    """Run a session to its end and record it; return this process's exit code.

    Args:
        settings: Of this process.
        lease: The right to work on the session.
        interruption: Tells it to stop.
        listener: Is told of its progress at once; must be quick.

    Raises:
        StoreError: the records cannot be written; another try may do.
    """
    database = open_database(settings)
    sessions = Sessions(database)
    structlog.contextvars.bind_contextvars(session=lease.session_id)
    with Heartbeats(sessions, lease, on_stop=interruption.person_asks) as heartbeats:
        try:
            heartbeats.beat()  # a lease that is lost, or a wish to stop, is known before any work
            session = sessions.get(lease.session_id)
            if session is None or session.lease != lease.number:
                return EXIT_LOST
            outcome = _outcome(settings, database, session, lease, interruption, listener)
            with interruption.shielded():
                heartbeats.close()
                _finish(sessions, lease, outcome)
        except Interrupted:
            heartbeats.close()
            with contextlib.suppress(SessionLost):
                sessions.heartbeat(lease, 0.0)  # whoever is there may go on at once
            log.info("session given back")
            return EXIT_GIVEN_BACK
        except SessionLost as error:
            log.warning("session lost", reason=error.message)
            return EXIT_LOST
    if outcome.state is SessionState.COMPLETED:
        remove_folder(sessions_folder(settings) / lease.session_id)
    return 0


def _outcome(
    settings: Settings,
    database: Database,
    session: Session,
    lease: Lease,
    interruption: Interruption,
    listener: Callable[[Mapping[str, Any]], None],
) -> Outcome:
    def work() -> Outcome:
        if session.controls == (TOOLKIT,):
            from ml_backend.bootstrap.toolkit_fit import fit_on

            return fit_on(settings, database, session, lease, interruption)
        from ml_backend.bootstrap.session_tools import work_on

        folder = sessions_folder(settings) / session.id
        folder.mkdir(parents=True, exist_ok=True)
        return work_on(settings, database, session, lease, interruption, folder, listener=listener)

    return guarded(work, interruption)


def _finish(sessions: Sessions, lease: Lease, outcome: Outcome) -> None:
    sessions.finish(lease, outcome.state, message=outcome.message, version=outcome.version)
    log.info(
        "session ended", state=outcome.state.value, version=outcome.version, why=outcome.message
    )
