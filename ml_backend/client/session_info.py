"""Training sessions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ml_backend.client.project import Project
from ml_backend.learning import ENDED, SessionState


@dataclass(frozen=True, kw_only=True)
class SessionInfo:
    """A training session: how far it is, and what came of it."""

    id: str
    state: SessionState
    status: str = ""  # its state; "unknown" where it runs and its trainer is not heard of
    project: Project | None = None  # that it trains for; None = a dataset
    dataset: str | None = None  # name of what it learns from; None = a project
    label: str | None = None  # a word of the person's own
    base: str | None = None  # the model that was asked for; None = the project's
    restarted_from: str | None = None  # id of the session whose checkpoint it started from
    owner: str | None = None  # name of the token that asked for it
    trigger: str = "person"
    controls: tuple[str, ...] = ()  # of the label config, that it trains for
    currently_training: bool = False
    stop_requested: bool = False
    created_at: datetime | None = None
    started_training_at: datetime | None = None
    finished_training_at: datetime | None = None
    heartbeat_at: datetime | None = None
    attempts: int = 0  # how often a trainer took it up
    message: str | None = None  # what came of it, or why it failed
    version: str | None = None  # name of the model that it made
    test: Mapping[str, Any] | None = None  # precision on the test set
    parameters: Mapping[str, Any] = field(default_factory=dict, repr=False)
    progress: Mapping[str, Any] = field(default_factory=dict)  # epoch, epochs, step, eta_s, phase
    report: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def has_ended(self) -> bool:
        """Return whether nobody works on it any more."""
        return self.state in ENDED
