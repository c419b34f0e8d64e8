"""`make demo` and `make demo-check`, as they run once everything is installed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.running_backend import STOP_WITHIN_S, processes_of

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
DONE_WITHIN_S = 600.0


@contextmanager
def running_demo(log: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start the demo on other ports than a person's own."""
    with log.open("wb") as output:
        demo = subprocess.Popen(
            [sys.executable, ROOT / "tools" / "demo.py", *options],
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield demo
    finally:
        demo.terminate()
        demo.wait(timeout=2 * STOP_WITHIN_S)


def test_the_check_passes_and_shows_every_task(seed: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"

    with running_demo(log, "--check", "--port", "0") as demo:
        code = demo.wait(timeout=DONE_WITHIN_S)

    assert code == 0, log.read_text()
    assert "All is well." in log.read_text()
    assert "nuclei-1.png" in log.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes through /proc")
def test_ctrl_c_stops_everything_it_started(seed: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_demo(log, "--token", "legacy", "--port", "0") as demo:
        folder = ROOT / ".demo" / f"run-{demo.pid}"
        deadline = time.monotonic() + DONE_WITHIN_S
        while "password" not in log.read_text() and time.monotonic() < deadline:
            assert demo.poll() is None, log.read_text()
            time.sleep(0.5)
        started = processes_of(folder / "backend")

        demo.send_signal(signal.SIGINT)
        code = demo.wait(timeout=2 * STOP_WITHIN_S)

    assert code == 0, log.read_text()
    assert len(started) >= 4  # supervisor, engine, web, trainer
    assert processes_of(folder / "backend") == {}
    assert not folder.exists()
