"""A session as it stands when it is queued, for tests."""

from __future__ import annotations

from ml_backend.domain import ProjectKey
from ml_backend.learning import Session, SessionState, TrainingParameters, Trigger

SESSION = Session(
    id="s",
    project=ProjectKey(origin="http://ls", project_id=1, created_at=1),
    state=SessionState.QUEUED,
    trigger=Trigger.PERSON,
    controls=("cells",),
    owner=None,
    parameters=TrainingParameters(),
    created_at=0,
    started_at=None,
    finished_at=None,
    heartbeat_at=None,
    lease=0,
    stop_requested=False,
    attempts=0,
    message=None,
    version=None,
    progress={},
    report={},
    manifest={},
)
