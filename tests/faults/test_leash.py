"""What the demo and the tests start never outlives them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.leash import let_go, start_leashed

pytestmark = pytest.mark.faults

ROOT = Path(__file__).resolve().parents[2]
GONE_WITHIN_S = 20.0
# a child with a child of its own, which tells its number
FAMILY = (
    "import subprocess, sys;"
    "grandchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    "print(grandchild.pid, flush=True); grandchild.wait()"
)
STARTER = (
    "import os, sys, time; from pathlib import Path; from tools.leash import start_leashed;"
    f"start_leashed([sys.executable, '-c', {FAMILY!r}], environment=os.environ,"
    " folder=Path('/'), log=open(sys.argv[1], 'wb')); time.sleep(600)"
)


def grandchild_in(log: Path) -> int:
    """Wait until the family is complete; return the number of the youngest."""
    deadline = time.monotonic() + GONE_WITHIN_S
    while time.monotonic() < deadline:
        if log.exists() and log.read_text().endswith("\n"):
            return int(log.read_text())
        time.sleep(0.05)
    raise AssertionError("the family did not start")


def is_gone(process: int) -> bool:
    """Wait until a process is no more; return whether it went."""
    deadline = time.monotonic() + GONE_WITHIN_S
    while time.monotonic() < deadline:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_letting_go_stops_the_whole_family(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        leashed = start_leashed(
            [sys.executable, "-c", FAMILY], environment=os.environ, folder=tmp_path, log=output
        )
    grandchild = grandchild_in(log)

    let_go(leashed)

    assert is_gone(grandchild)


def test_a_starter_that_is_killed_takes_its_family_along(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with subprocess.Popen([sys.executable, "-c", STARTER, log], cwd=ROOT) as starter:
        grandchild = grandchild_in(log)

        starter.send_signal(signal.SIGKILL)

    assert is_gone(grandchild)


def test_the_end_of_the_command_ends_the_leash(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as output:
        leashed = start_leashed(
            [sys.executable, "-c", "raise SystemExit(3)"],
            environment=os.environ,
            folder=tmp_path,
            log=output,
        )

    assert leashed.wait(timeout=GONE_WITHIN_S) == 3
