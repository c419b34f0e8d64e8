"""`ml-backend serve`: web, engine and trainer as supervised children of one process.

Each child leads a process group of its own, so Ctrl-C in a terminal reaches the supervisor only,
which then stops the children in order. A child that crashes is started again with growing pauses;
one that says its settings are wrong (exit code `EXIT_SETTINGS`) stops everything, because starting
it again would only repeat the sentence.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Protocol

import structlog

EXIT_SETTINGS = 78  # EX_CONFIG of sysexits.h
STOP_AFTER_S = 15.0  # of asking; then a child is killed. The whole stop stays under 20 s.
LONGEST_PAUSE_S = 30.0
STEADY_AFTER_S = 60.0  # a child that ran this long starts with the shortest pause again

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class ChildSpec:
    """How to start one child."""

    name: str
    arguments: Sequence[str]  # of the program `ml-backend`
    environment: Mapping[str, str] = field(default_factory=dict)  # added to the parent's
    pass_fds: tuple[int, ...] = ()


class Running(Protocol):
    """The part of subprocess.Popen that the supervisor needs."""

    pid: int

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        ...


def start_child(spec: ChildSpec, lifeline_fd: int) -> subprocess.Popen[bytes]:
    """Start `ml-backend ARGUMENTS` in a process group of its own."""
    command = [sys.executable, "-m", "ml_backend", *spec.arguments]
    return subprocess.Popen(
        [*command, "--lifeline-fd", str(lifeline_fd)],
        env={**os.environ, **spec.environment},
        pass_fds=(lifeline_fd, *spec.pass_fds),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def pause_before_restart(failures: int) -> float:
    """Return the seconds to wait before the start after `failures` crashes in a row."""
    return min(LONGEST_PAUSE_S, 0.5 * 2.0 ** max(0, failures - 1))


@dataclass
class _Child:
    spec: ChildSpec
    process: Running | None = None
    started_at: float = 0.0
    failures: int = 0
    start_at: float = 0.0  # monotonic; when it may be started


class Supervisor:
    """Runs children until it is told to stop, or one of them cannot be served."""

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        *,
        start: Callable[[ChildSpec, int], Running] = start_child,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._children = [_Child(spec) for spec in specs]
        self._start = start
        self._clock = clock
        self._stopping = False
        self._exit_code = 0
        self._lifeline_read, self._lifeline_write = os.pipe()

    def request_stop(self, signal_number: int = 0, frame: FrameType | None = None) -> None:
        """Ask for everything to stop; safe in a signal handler."""
        del signal_number, frame
        self._stopping = True

    def run(self) -> int:
        """Start the children, keep them running, stop them; return the exit code."""
        signal.signal(signal.SIGTERM, self.request_stop)
        signal.signal(signal.SIGINT, self.request_stop)
        signal.signal(signal.SIGHUP, self.request_stop)
        try:
            while not self._stopping:
                self.tend()
                time.sleep(0.1)
        finally:
            self._stop_all()
        return self._exit_code

    def tend(self) -> None:
        """Start what is due and notice what has ended; called many times a second."""
        now = self._clock()
        for child in self._children:
            if child.process is None:
                if now >= child.start_at:
                    child.process = self._start(child.spec, self._lifeline_read)
                    child.started_at = now
                    log.info("child started", child=child.spec.name, pid=child.process.pid)
                continue
            code = child.process.poll()
            if code is not None:
                self._ended(child, code, now)

    @property
    def stopping(self) -> bool:
        """Return whether everything is about to stop."""
        return self._stopping

    def _ended(self, child: _Child, code: int, now: float) -> None:
        # a killed gunicorn leaves workers behind, which would go on answering on our port
        _signal_group(child.process, signal.SIGKILL)
        child.process = None
        if code == EXIT_SETTINGS:
            log.error("child cannot be served; see its message above", child=child.spec.name)
            self._exit_code = EXIT_SETTINGS
            self._stopping = True
            return
        steady = now - child.started_at >= STEADY_AFTER_S
        child.failures = 1 if steady else child.failures + 1
        pause = pause_before_restart(child.failures)
        child.start_at = now + pause
        log.warning(
            "child ended and will be started again",
            child=child.spec.name,
            exit_code=code,
            pause_s=pause,
        )

    def _stop_all(self) -> None:
        running = [child for child in self._children if child.process is not None]
        for child in running:
            _signal_group(child.process, signal.SIGTERM)
        deadline = time.monotonic() + STOP_AFTER_S
        while time.monotonic() < deadline and any(_alive(child.process) for child in running):
            time.sleep(0.05)
        for child in running:  # workers of a child that is gone may linger in its group
            _signal_group(child.process, signal.SIGKILL)
        os.close(self._lifeline_write)
        log.info("stopped")


def _alive(process: Running | None) -> bool:
    return process is not None and process.poll() is None


def _signal_group(process: Running | None, number: signal.Signals) -> None:
    if process is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)


def open_listener(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 lets the system choose.

    Children inherit it, so that the port is theirs before they are up, and stays theirs while
    they are started again: a request that arrives meanwhile waits instead of being refused.

    Raises:
        OSError: when the port is in use or not allowed.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.listen(512)
    listener.set_inheritable(True)
    return listener
