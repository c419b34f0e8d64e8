"""What watches over a backend in processes of its own: tokens, probes, scrapes, also in trouble."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.running_backend import RunningBackend, running_backend

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes through /proc"),
]

PASSWORD = ("operator", "a password")
BASIC = {"BASIC_AUTH_USER": PASSWORD[0], "BASIC_AUTH_PASS": PASSWORD[1]}


def tokens(backend: RunningBackend, *arguments: str) -> str:
    """Run `ml-backend tokens` and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "ml_backend", "tokens", *arguments],
        env={**os.environ, "DATA_DIR": str(backend.data_dir), **BASIC},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def wait_for(look: Callable[[], bool], *, within_s: float = 120.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + within_s
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def gauges(backend: RunningBackend) -> dict[str, float]:
    """Return the sum of every series of a scrape, by name."""
    started = time.monotonic()
    answer = httpx.get(f"{backend.url}/metrics", auth=PASSWORD, timeout=10)
    assert (answer.status_code, time.monotonic() - started < 8) == (200, True)
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def test_a_backend_tells_how_it_is_while_its_engine_hangs_and_after_it_was_killed(
    tmp_path: Path,
) -> None:
    def probe() -> tuple[int, dict[str, Any]]:
        answer = httpx.get(f"{backend.url}/readyz", timeout=5)
        return answer.status_code, answer.json()["checks"]

    with running_backend(tmp_path, BASIC) as backend:
        wait_for(lambda: _is_up(backend))
        text = tokens(backend, "create", "anna", "--role", "predict")
        headers = {"Authorization": f"Bearer {text}"}

        # a token opens the API, and nothing else does
        who = httpx.get(f"{backend.url}/api/v1/whoami", headers=headers)
        load = httpx.get(f"{backend.url}/api/v1/load", headers=headers).json()
        closed = httpx.get(f"{backend.url}/api/v1/whoami")
        assert who.json() == {"name": "anna", "role": "predict"}
        assert closed.status_code == 401
        assert (load["running"], load["slots"], load["engine"]["depth"]) == (0, 1, 0)
        scraped = gauges(backend)
        assert (scraped["ml_backend_engine_up"], scraped["ml_backend_trainers"]) == (1.0, 1.0)
        assert scraped["ml_backend_engine_networks"] >= 1.0

        # a hanging engine holds nothing up
        engine = backend.process_named("engine")
        os.kill(engine, signal.SIGSTOP)
        assert probe() == (200, {"records": "ok", "release": "ok", "engine": "away"})
        assert gauges(backend)["ml_backend_engine_up"] == 0.0
        busy = httpx.get(f"{backend.url}/api/v1/load", headers=headers, timeout=5).json()
        assert busy["engine"] is None

        # a killed one comes back, and its counters begin anew
        os.kill(engine, signal.SIGKILL)
        wait_for(lambda: probe()[1]["engine"] == "ok")
        assert gauges(backend)["ml_backend_engine_up"] == 1.0

        # a revoked token opens nothing from then on
        tokens(backend, "revoke", "anna")
        assert httpx.get(f"{backend.url}/api/v1/whoami", headers=headers).status_code == 401
        assert text.split("_")[2] not in backend.log.read_text()


def _is_up(backend: RunningBackend) -> bool:
    try:
        return httpx.get(f"{backend.url}/readyz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
