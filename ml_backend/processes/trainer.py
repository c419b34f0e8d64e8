"""The trainer process: a Huey consumer that takes work from the queue and keeps house.

Its workers are threads: Huey's process workers fork, which breaks CUDA, and are daemonic, which
forbids the subprocess that a training session runs in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from huey import crontab

log = structlog.get_logger(__name__)


def register_housekeeping(queue: Any, keep_house: Callable[[], None]) -> None:
    """Have `keep_house` called once a minute by each trainer; doing it twice does no harm."""

    def housekeeping() -> None:
        keep_house()

    queue.periodic_task(crontab(minute="*"), name="housekeeping")(housekeeping)


def run_trainer(queue: Any) -> None:
    """Work until SIGTERM."""
    consumer = queue.create_consumer(
        workers=1, worker_type="thread", periodic=True, check_worker_health=True
    )
    log.info("trainer waits for work")
    consumer.run()
