"""Runs a command that cannot outlive its starter: python leash.py COMMAND ...

The starter holds the other end of our standard input and never writes. When it closes it, or is
gone for whatever reason, kill -9 included, the command and its process group are stopped.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

STOP_WITHIN_S = 25.0  # then the group is killed


def start_leashed(
    command: Sequence[str | Path], *, environment: Mapping[str, str], folder: Path, log: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start `command` in `folder` on a leash; `let_go` of the result stops it."""
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, command)],
        env=dict(environment),
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C in a terminal reaches the starter only
    )


def let_go(leashed: subprocess.Popen[bytes]) -> None:
    """Stop what `start_leashed` started and wait until it is gone."""
    if leashed.stdin is not None:
        leashed.stdin.close()
    leashed.wait()


def main(command: Sequence[str]) -> int:
    """Run `command` until it ends or standard input does; return its exit code."""
    # a shell's background jobs ignore SIGINT and children inherit that
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    signal.signal(signal.SIGTERM, lambda *_: _stop(child))
    threading.Thread(target=_stop_at_the_end_of_input, args=(child,), daemon=True).start()
    code = child.wait()
    _signal_group(child, signal.SIGKILL)  # what it left behind
    return code


def _stop_at_the_end_of_input(child: subprocess.Popen[bytes]) -> None:
    while os.read(0, 1):
        pass
    _stop(child)


def _stop(child: subprocess.Popen[bytes]) -> None:
    _signal_group(child, signal.SIGTERM)
    timer = threading.Timer(STOP_WITHIN_S, _signal_group, args=(child, signal.SIGKILL))
    timer.daemon = True
    timer.start()


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
