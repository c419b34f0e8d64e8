"""How busy a server is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EngineLoad:
    """How busy an engine is."""

    device: str
    depth: int  # images that wait or are in work
    slots: int  # images that it works on at once


@dataclass(frozen=True, kw_only=True)
class Load:
    """How busy a server is."""

    load: float  # 0 = idle .. 1 = all slots are busy
    queued: int  # sessions that wait for a trainer
    running: int  # sessions in training
    slots: int  # trainers that are there
    engine: EngineLoad | None = None  # None = it does not answer
