"""Changes of what a project serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ml_backend.client.project import Project
from ml_backend.learning import ActivationState


@dataclass(frozen=True, kw_only=True)
class ActivationInfo:
    """A change of what a project serves, and how far it is."""

    id: int
    project: Project
    state: ActivationState
    release: str | None = None  # version string, once it is known
    versions: Mapping[str, str] = field(default_factory=dict)  # control -> model
    back_to_base: tuple[str, ...] = ()  # controls that go back to their base network
    reason: str = ""
    message: str | None = None
    created_at: datetime | None = None
    finished_at: datetime | None = None
