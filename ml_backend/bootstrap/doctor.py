"""What `ml-backend doctor` looks with."""

from __future__ import annotations

from functools import partial

import httpx
import redis

from ml_backend.bootstrap.images import build_fetcher
from ml_backend.bootstrap.label_studio import configured_access
from ml_backend.bootstrap.networks import records_for, resolver
from ml_backend.bootstrap.records import open_database, prepare_records, secret_of
from ml_backend.bootstrap.toolkit_class import component_of, open_class
from ml_backend.domain import Component, FetchedFile
from ml_backend.engines.device_profile import open_device
from ml_backend.engines.embedder_catalogue import resolve_embedder
from ml_backend.errors import StoreError
from ml_backend.labelstudio.client import LabelStudioClient
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.service.checks import Check
from ml_backend.service.doctor import Instruments, run_checks
from ml_backend.settings import Settings
from ml_backend.store.toolkit_values import ToolkitValues

TIMEOUT_S = 5.0


def examine(settings: Settings, *, backend_url: str, project: str | None) -> list[Check]:
    """Return what a look at everything found; it leaves projects as they are."""
    access = configured_access(settings)
    fetcher = build_fetcher(settings)

    def resolve_model() -> Component:
        if settings.toolkit_model is not None:
            prepare_records(settings)
            database = open_database(settings)
            return component_of(open_class(settings, database, ToolkitValues(database)))
        device = str(open_device(settings.device))
        records = records_for(settings, settings.model)
        return resolver(settings, device, records)(settings.model)

    def fetch(url: str, task_id: int) -> FetchedFile:
        return fetcher.fetch(url, task_id=task_id, access=access)

    def ping_redis() -> None:
        try:
            redis.Redis.from_url(secret_of(settings.redis_url) or "").ping()
        except (redis.RedisError, ValueError) as error:
            raise StoreError(f"Redis does not answer: {error}.") from None

    label_studio = None
    if access.origin is not None:
        label_studio = LabelStudioClient(access.origin, access.token or "")
    with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as http:
        instruments = Instruments(
            open_database=partial(prepare_records, settings),
            ping_redis=ping_redis,
            resolve_model=resolve_model,
            resolve_embedder=partial(resolve_embedder, settings.embedder),
            parse_label_config=parse_label_config,
            fetch=fetch,
            http=http,
            label_studio=label_studio,
        )
        return run_checks(settings, instruments, backend_url=backend_url, project=project)
