"""Label Studio projects as the backend knows them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project of a Label Studio."""

    key: str  # names it without doubt
    id: int  # its number in Label Studio
    created_at: datetime | None
    label_studio: str  # address; "dataset" for what stands for a dataset


@dataclass(frozen=True, kw_only=True)
class ConnectedProject(Project):
    """A project that was set up, and what it serves."""

    release: str | None = None  # version string of what it serves
    label_config_error: str | None = None  # why its label config cannot be served
    last_seen_at: datetime | None = None  # that Label Studio asked for it
