"""The whole backend on PostgreSQL and Redis, as in docker-compose.yml, without code changes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults.test_processes import predict, setup
from tests.running_backend import RunningBackend, running_backend
from tests.servers import fresh_postgres_database, private_postgres, private_redis

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes through /proc"),
]


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[RunningBackend]:
    with (
        private_postgres() as maintenance,
        fresh_postgres_database(maintenance) as database_url,
        private_redis() as redis_url,
    ):
        settings = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
        with running_backend(tmp_path, settings) as running:
            yield running


def test_everything_works_on_postgresql_and_redis(backend: RunningBackend) -> None:
    backend.wait_until_up()

    version = setup(backend).json()["model_version"]
    entry = predict(backend, 1)
    event = {"action": "START_TRAINING", "project": {"id": 1, "created_at": "2026-11-20T22:00:00Z"}}
    recorded = httpx.post(f"{backend.url}/webhook", json=event, timeout=5)
    job = httpx.post(f"{backend.url}/job_status", json={"job": recorded.json()["job"]}, timeout=5)

    assert entry["model_version"] == version
    assert recorded.status_code == 201
    assert job.json()["job"] == recorded.json()["job"]
    assert not list(backend.data_dir.glob("*.sqlite3"))  # nothing fell back to files
