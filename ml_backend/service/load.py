"""How busy an installation is, as one number."""

from __future__ import annotations

from dataclasses import dataclass

from ml_backend.store.census import Work


@dataclass(frozen=True, kw_only=True)
class EngineWork:
    """What an engine has to do."""

    depth: int  # images that wait or are in work
    slots: int  # images that it works on at once


def load_of(work: Work, engine: EngineWork | None) -> float:
    """Return 0.0 for idle to 1.0 for all slots busy.

    It is the mean of two shares: of the trainers that are there how many train, and of the images
    that the engine works on at once how many it has. Waiting sessions without any trainer count as
    busy trainers. Of an engine that does not answer nothing is known: then the first share counts
    alone.
    """
    if work.trainers:
        training = min(1.0, work.running / work.trainers)
    else:
        training = 1.0 if work.running or work.queued else 0.0
    if engine is None:
        return training
    return (training + min(1.0, engine.depth / max(1, engine.slots))) / 2
