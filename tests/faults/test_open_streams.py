"""A web process that is told to end does not wait for those who follow trainings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from ml_backend.domain import ProjectKey
from ml_backend.learning import TrainingParameters, Trigger
from ml_backend.store.database import Database
from ml_backend.store.sessions import Sessions
from tests.running_backend import START_WITHIN_S, free_port, wait_until_gone

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes through /proc"),
]
SOON_S = 6.0  # gunicorn kills workers that are busy after ten


def test_sigterm_ends_a_stream_and_the_process_at_once(tmp_path: Path) -> None:
    data_dir, port = tmp_path / "backend-data", free_port()
    environment = {
        "PORT": str(port),
        "DATA_DIR": str(data_dir),
        "WORKERS": "1",
        "ENGINE_URL": "http://127.0.0.1:9",
    }
    with (tmp_path / "log").open("ab") as log:
        web = subprocess.Popen(
            [sys.executable, "-m", "ml_backend", "web"],
            env={**os.environ, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_alive(f"http://127.0.0.1:{port}")
        database = Database(f"sqlite:///{data_dir / 'records.sqlite3'}")
        session = Sessions(database).request(
            ProjectKey(origin="http://ls.example", project_id=1, created_at=2),
            controls=["cells"],
            trigger=Trigger.PERSON,
            parameters=TrainingParameters(),
        )
        url = f"http://127.0.0.1:{port}/api/v1/sessions/{session.id}/events"
        with httpx.stream("GET", url, timeout=30) as answer:
            lines = answer.iter_lines()
            assert "event: session" in (next(lines) for _ in range(5))
            begun = time.monotonic()
            web.send_signal(signal.SIGTERM)
            assert not any(line.startswith("event") for line in lines)
        assert web.wait(timeout=30) == 0
        assert time.monotonic() - begun < SOON_S
        database.close()
    finally:
        web.kill()
        wait_until_gone(data_dir)


def wait_until_alive(url: str) -> None:
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{url}/metrics", timeout=5)
            return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise AssertionError("the web process does not start")
