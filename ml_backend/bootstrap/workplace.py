"""A session that runs in this process, and what it has at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from ml_backend.bootstrap.restarting import open_restart
from ml_backend.domain import Component, Segmenter
from ml_backend.engines.cellpose import open_segmenter
from ml_backend.learning import Session
from ml_backend.settings import Settings
from ml_backend.store.database import Database
from ml_backend.training.interruption import Interruption
from ml_backend.training.outcome import Outcome
from ml_backend.training.session import SessionRun, SessionTools
from ml_backend.training.session_log import SessionLog


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where a session is worked on."""

    settings: Settings
    database: Database
    session: Session
    journal: SessionLog
    interruption: Interruption
    folder: Path  # the session's own; outlives this process
    device: torch.device

    def restarted(self, base: Component) -> Component | None:
        """Return what the session goes on from, where it goes on from another one.

        Raises:
            TrainingError: what it would go on from is gone.
            StoreError
        """
        if self.session.restarted_from is None:
            return None
        return open_restart(self.settings, self.database, self.session, self.folder, base).start()


class ToolMaker(Protocol):
    """Makes the tools of one session that fine-tunes a network."""

    def tools(self) -> SessionTools:
        """Return the tools."""
        ...


def fine_tune_at(
    place: Workplace, workshop_of: Callable[[Workplace, Segmenter], ToolMaker]
) -> Outcome:
    """Run a session that fine-tunes; see `training.outcome.guarded` for what it raises."""
    settings = place.settings
    with open_segmenter(
        place.device, max_networks=settings.max_networks, flow_cache_mb=settings.flow_cache_mb
    ) as segmenter:
        return SessionRun(
            place.session,
            workshop_of(place, segmenter).tools(),
            journal=place.journal,
            interruption=place.interruption,
            folder=place.folder,
        ).run()
