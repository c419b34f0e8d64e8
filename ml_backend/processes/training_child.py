"""The process that a training session runs in: started, watched and ended by a trainer.

A process of its own because memory of a GPU comes back only when its process ends, because forking
after CUDA is initialised breaks, and because the trainer must outlive whatever happens in there.
It leads a process group, so that it can be ended with everything it started, and holds the read
end of a pipe, so that it goes when the trainer is gone, even after kill -9.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO

import structlog

from ml_backend.learning import Lease
from ml_backend.processes.lifeline import GRACE_S

COMMAND = "train-session"
EXIT_GIVEN_BACK = 75  # EX_TEMPFAIL of sysexits.h: told to go; a checkpoint lies ready

log = structlog.get_logger(__name__)


class TrainingChild:
    """A running training process."""

    def __init__(self, lease: Lease, *, program: Sequence[str] = ("-m", "ml_backend")) -> None:
        """Start it.

        Args:
            lease: the right to write to the session, which the child goes on with.
            program: what Python runs.

        Raises:
            OSError: the machine has no room for another process.
        """
        read_fd, write_fd = os.pipe()  # only the read end is inherited
        self._lifeline: IO[bytes] | None = os.fdopen(write_fd, "wb", buffering=0)
        arguments = [lease.session_id, "--lease", str(lease.number), "--owner", lease.owner]
        try:
            self._process = subprocess.Popen(
                [sys.executable, *program, COMMAND, *arguments, "--lifeline-fd", str(read_fd)],
                pass_fds=(read_fd,),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            self._lifeline.close()
            raise
        finally:
            os.close(read_fd)
        log.info("training process started", session=lease.session_id, pid=self._process.pid)

    @property
    def pid(self) -> int:
        """Return its process id, which is its group's as well."""
        return self._process.pid

    def wait(self, timeout_s: float) -> int | None:
        """Return its exit code (negative: a signal's number), None while it runs on."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        self._bury()
        return code

    def ask_to_go(self) -> None:
        """Have it write its checkpoint and end, within a batch."""
        self._signal(signal.SIGTERM)

    def end(self, *, within_s: float = GRACE_S) -> None:
        """Ask it to go; kill it with everything it started when it takes too long."""
        self.ask_to_go()
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        self.kill()

    def kill(self) -> None:
        """End it at once with everything it started."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._bury()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _bury(self) -> None:
        with _burying:
            if self._lifeline is not None:
                # whatever it started (loaders, compilers) may linger in its group
                self._signal(signal.SIGKILL)
                self._lifeline.close()
                self._lifeline = None


_burying = threading.Lock()


def describe_end(code: int) -> str:
    """Return how a process ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, which often means that memory ran out" if -code == signal.SIGKILL else name
