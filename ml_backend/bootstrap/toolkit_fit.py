"""A session of a toolkit class, in the process that it has for itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from ml_backend.bootstrap.toolkit import toolkit_releasing
from ml_backend.bootstrap.toolkit_class import open_class
from ml_backend.errors import TrainingError
from ml_backend.learning import Lease, Session, SessionState
from ml_backend.service.toolkit_fitting import FitRecords, FitRun, Fitted
from ml_backend.settings import Settings
from ml_backend.store.database import Database
from ml_backend.store.events import Events
from ml_backend.store.projects import Projects
from ml_backend.store.sessions import Sessions
from ml_backend.store.toolkit_values import ToolkitValues
from ml_backend.store.waiting_events import WaitingEvents
from ml_backend.training.interruption import Interruption
from ml_backend.training.outcome import Outcome

NICENESS = 10  # the engine on the same machine comes first
_SHOWN = 3  # failures in a session's message


def fit_on(
    settings: Settings,
    database: Database,
    session: Session,
    lease: Lease,
    interruption: Interruption,
) -> Outcome:
    """Call `fit` for the events that wait; see `training.outcome.guarded` for what it raises."""
    values = ToolkitValues(database)
    releasing = toolkit_releasing(settings, database, values)
    if releasing is None:
        raise TrainingError(
            "The session is of a toolkit class, and TOOLKIT_MODEL names none any more; start the "
            "backend with `--toolkit` again."
        )
    with contextlib.suppress(OSError, AttributeError):  # Windows has no such thing
        os.nice(NICENESS)
    sessions = Sessions(database)

    def note(progress: Mapping[str, Any]) -> None:
        sessions.note(lease, progress=progress)

    run = FitRun(
        open_class(settings, database, values),
        FitRecords(
            events=Events(database),
            waiting=WaitingEvents(database),
            projects=Projects(database),
            releasing=releasing,
        ),
        session.project,
        session_id=session.id,
        progress=session.progress,
        note=note,
        check=interruption.check,
    )
    return outcome_of(run.run())


def outcome_of(fitted: Fitted) -> Outcome:
    """Return the end of a session: failed where no call of `fit` has worked."""
    failed = len(fitted.failures)
    if not failed:
        message = f"fit() was called for {fitted.calls} events."
    else:
        reasons = " ".join(dict.fromkeys(fitted.failures[:_SHOWN]))
        message = f"{failed} of {fitted.calls} calls of fit() failed: {reasons}"
    all_failed = failed and failed >= fitted.calls
    return Outcome(
        state=SessionState.FAILED if all_failed else SessionState.COMPLETED,
        message=message,
        version=fitted.version,
    )
