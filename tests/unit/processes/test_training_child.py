"""Real training processes that run a few lines of Python instead of a training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ml_backend.learning import Lease
from ml_backend.processes.training_child import TrainingChild, describe_end

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="process groups")

LEASE = Lease(session_id="abc", number=7, owner="host:1")
ROOT = Path(__file__).resolve().parents[3]
GONE_WITHIN_S = 20.0
# tells that it is there, then sleeps through SIGTERM or not
SLEEPER = (
    "import pathlib, signal, subprocess, sys, time;"
    "{first};"
    "helper = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    "pathlib.Path({told!r}).write_text(f'{{helper.pid}} ');"
    "time.sleep(600)"
)
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


def program(told: Path, first: str = "pass") -> tuple[str, str]:
    return ("-c", SLEEPER.format(told=str(told), first=first))


def helper_in(told: Path) -> int:
    """Wait until the process has started its helper; return the helper's process id."""
    deadline = time.monotonic() + GONE_WITHIN_S
    while time.monotonic() < deadline:
        if told.exists() and told.read_text().endswith(" "):
            return int(told.read_text())
        time.sleep(0.02)
    raise AssertionError("the process did not start")


def is_gone(process: int) -> bool:
    deadline = time.monotonic() + GONE_WITHIN_S
    while time.monotonic() < deadline:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        status = Path(f"/proc/{process}/stat")
        if status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True  # nobody waits for it here, but it runs no more
        time.sleep(0.02)
    return False


def test_it_is_told_its_session_its_lease_and_its_lifeline(tmp_path: Path) -> None:
    told = tmp_path / "told"
    code = f"import pathlib, sys; pathlib.Path({str(told)!r}).write_text(' '.join(sys.argv[1:]))"

    ended = TrainingChild(LEASE, program=("-c", code)).wait(GONE_WITHIN_S)

    words = told.read_text().split()
    assert ended == 0
    assert words[:6] == ["train-session", "abc", "--lease", "7", "--owner", "host:1"]
    assert words[6] == "--lifeline-fd"
    assert int(words[7]) > 2


def test_waiting_for_one_that_works_on_returns_nothing(tmp_path: Path) -> None:
    child = TrainingChild(LEASE, program=program(tmp_path / "told"))
    helper = helper_in(tmp_path / "told")

    running = child.wait(0.01)
    child.kill()

    assert running is None
    assert is_gone(child.pid)
    assert is_gone(helper)


def test_one_that_goes_when_asked_is_not_waited_for_any_longer(tmp_path: Path) -> None:
    child = TrainingChild(LEASE, program=program(tmp_path / "told"))
    helper = helper_in(tmp_path / "told")

    child.end(within_s=600)

    assert child.wait(1) == -signal.SIGTERM
    assert is_gone(helper)


def test_one_that_is_deaf_is_killed_with_all_it_started(tmp_path: Path) -> None:
    child = TrainingChild(LEASE, program=program(tmp_path / "told", DEAF))
    helper = helper_in(tmp_path / "told")

    child.end(within_s=0.1)

    assert child.wait(1) == -signal.SIGKILL
    assert is_gone(helper)


def test_a_helper_of_one_that_was_killed_does_not_stay(tmp_path: Path) -> None:
    child = TrainingChild(LEASE, program=program(tmp_path / "told"))
    helper = helper_in(tmp_path / "told")

    os.kill(child.pid, signal.SIGKILL)

    assert child.wait(GONE_WITHIN_S) == -signal.SIGKILL
    assert is_gone(helper)


def test_a_trainer_that_is_killed_takes_its_training_along(tmp_path: Path) -> None:
    told = tmp_path / "told"
    watching = (
        "from ml_backend.processes.lifeline import watch_parent; import sys;"
        "watch_parent(int(sys.argv[-1]))"
    )
    trainer_code = (
        "from ml_backend.learning import Lease;"
        "from ml_backend.processes.training_child import TrainingChild;"
        f"child = TrainingChild(Lease(session_id='a', number=1, owner='b'),"
        f" program={program(told, watching)!r});"
        "child.wait(600)"
    )
    with subprocess.Popen([sys.executable, "-c", trainer_code], cwd=ROOT) as trainer:
        helper = helper_in(told)
        group = os.getpgid(helper)

        trainer.send_signal(signal.SIGKILL)

    assert is_gone(group)


def test_an_end_is_described_in_words() -> None:
    assert describe_end(3) == "exit code 3"
    assert describe_end(-signal.SIGSEGV) == "SIGSEGV"
    assert "memory" in describe_end(-signal.SIGKILL)
