"""The trainer's queue with the work it takes on."""

from __future__ import annotations

from huey import Huey

from ml_backend.bootstrap.records import MEGABYTE, open_database, secret_of
from ml_backend.processes.trainer import register_housekeeping
from ml_backend.settings import Settings
from ml_backend.store.events import Events
from ml_backend.store.predictions import KeptPredictions
from ml_backend.store.queue import make_queue


def build_queue(settings: Settings) -> Huey:
    """Return the trainer's queue with its housekeeping.

    Raises:
        StoreError
    """

    database = open_database(settings)
    kept, events = KeptPredictions(database), Events(database)

    def keep_house() -> None:
        kept.prune(settings.kept_results_mb * MEGABYTE)
        events.prune()

    queue = make_queue(settings.data_dir, secret_of(settings.redis_url))
    register_housekeeping(queue, keep_house)
    return queue
