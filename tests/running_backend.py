"""Starts `ml-backend serve` as a person would, for tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

START_WITHIN_S = 180.0
STOP_WITHIN_S = 20.0


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, kw_only=True)
class RunningBackend:
    """A backend in processes of its own."""

    url: str
    data_dir: Path
    log: Path
    process: subprocess.Popen[bytes]

    def wait_until_up(self, auth: tuple[str, str] | None = None) -> None:
        """Wait for /health to answer 200; `auth` is the Basic auth that it wants."""
        deadline = time.monotonic() + START_WITHIN_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the backend ended:\n{self.log.read_text()[-4000:]}")
            try:
                if httpx.get(f"{self.url}/health", auth=auth, timeout=2).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        raise AssertionError(f"the backend is not up:\n{self.log.read_text()[-4000:]}")

    def processes(self) -> dict[int, str]:
        """Return the command line by process id of everything that runs on this data folder."""
        return processes_of(self.data_dir)

    def process_named(self, name: str) -> int:
        """Return the lowest process id of the child `name` (its workers come after it)."""
        found = [
            pid for pid, line in self.processes().items() if f" ml_backend {name} " in f"{line} "
        ]
        assert found, f"no process {name} among {self.processes()}"
        return min(found)


def processes_of(data_dir: Path) -> dict[int, str]:
    """Return the command line by process id of all with this DATA_DIR (reads /proc: Linux)."""
    marker = f"DATA_DIR={data_dir}".encode()
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if marker in (folder / "environ").read_bytes().split(b"\0"):
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if line:  # a zombie has none
                    found[int(folder.name)] = line.strip()
        except (OSError, PermissionError):
            continue
    return found


def wait_until_gone(data_dir: Path, within_s: float = STOP_WITHIN_S) -> dict[int, str]:
    """Wait until nothing runs on `data_dir`; return what is left."""
    deadline = time.monotonic() + within_s
    while (left := processes_of(data_dir)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


@contextmanager
def running_backend(
    folder: Path,
    environment: Mapping[str, str] | None = None,
    *,
    port: int | None = None,
    arguments: Sequence[str] = (),
) -> Iterator[RunningBackend]:
    """Start `ml-backend serve` with its records in `folder`; stop it at the end.

    Args:
        folder: a second start with the same one finds the records of the first.
        environment: settings that differ from this process's.
        port: where it listens; None = any that is free.
        arguments: of `serve`.
    """
    port = free_port() if port is None else port
    data_dir = folder / "backend-data"
    log = folder / "backend.log"
    settings = {"PORT": str(port), "DATA_DIR": str(data_dir), "WORKERS": "1"}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ml_backend", "serve", *arguments],
            env={**os.environ, **settings, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    backend = RunningBackend(
        url=f"http://127.0.0.1:{port}", data_dir=data_dir, log=log, process=process
    )
    try:
        yield backend
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=STOP_WITHIN_S + 5)
            except subprocess.TimeoutExpired:
                process.kill()
