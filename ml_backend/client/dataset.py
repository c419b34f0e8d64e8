"""Datasets that sessions learned from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset outside Label Studio: a folder or archive that sessions were asked for with."""

    name: str
    source: Mapping[str, Any] = field(default_factory=dict)  # root, train_images, ...
    created_at: datetime | None = None
    sessions: int = 0  # that learned from it
    models: int = 0  # that came of them
