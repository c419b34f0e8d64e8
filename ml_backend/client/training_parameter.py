"""What a training can be told, and what holds without a word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Value = bool | int | float | str


@dataclass(frozen=True, kw_only=True)
class ParameterInfo:
    """A parameter of trainings, with our defaults and the reference service's."""

    name: str
    meaning: str
    allowed: str  # in words
    projects_only: bool
    defaults: Mapping[str, Value]  # by architecture
    reference_default: Value | None = None  # None = the reference service has none
    why: str | None = None  # ours is the same or another
