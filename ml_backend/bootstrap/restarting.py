"""Where a session goes on that continues another one's training."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from ml_backend.bootstrap.training import sessions_folder
from ml_backend.domain import Component
from ml_backend.engines.networks import load_network
from ml_backend.learning import Session, Version
from ml_backend.settings import Settings
from ml_backend.store.database import Database
from ml_backend.store.sessions import Sessions
from ml_backend.store.versions import Versions
from ml_backend.training.learned_weights import learn
from ml_backend.training.restarting import Restart
from ml_backend.training.training_checkpoint import load_weights


def open_restart(
    settings: Settings, database: Database, session: Session, folder: Path, base: Component
) -> Restart:
    """Return what finds the network that a session goes on from.

    Args:
        settings: Of this process.
        database: The records.
        session: That goes on from another one.
        folder: Its own.
        base: The network that it would start from otherwise.
    """
    sessions, versions = Sessions(database), Versions(database)

    def version_of(old: Session) -> Version | None:
        return None if old.version is None else versions.get(old.project, old.version)

    def write_checkpoint(old: Session, checkpoint: Path, start: Component, target: Path) -> None:
        network = load_network(start, torch.device("cpu"))
        parameters = old.parameters
        learned = learn(network, start, lora_rank=parameters.lora_rank, seed=parameters.seed)
        load_weights(checkpoint, learned.network)
        learned.write(target)

    return Restart(
        session,
        folder,
        find_session=partial(sessions.get, with_manifest=False),
        find_version=version_of,
        folder_of=lambda session_id: sessions_folder(settings) / session_id,
        write_checkpoint=write_checkpoint,
        base=base,
    )
