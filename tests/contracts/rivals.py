"""What a second process does in the contracts; importable by a spawned process."""

from __future__ import annotations

from multiprocessing.synchronize import Barrier

from ml_backend.store.database import Database
from ml_backend.store.predictions import KeptPredictions, PredictionKey


def migrate(address: str, start: Barrier) -> None:
    """Migrate together with the others."""
    database = Database(address)
    start.wait(timeout=60)
    database.migrate()
    database.close()


def count_claims(address: str, start: Barrier, keys: list[PredictionKey], owner: str) -> int:
    """Claim every key together with the others; return how many were won."""
    database = Database(address)
    kept = KeptPredictions(database)
    start.wait(timeout=60)
    won = sum(kept.claim(key, owner, lease_s=600).state == "claimed" for key in keys)
    database.close()
    return won
