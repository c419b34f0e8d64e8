"""The real `label-studio-ml` 1.0.9 of the package index, started as people start it."""

from __future__ import annotations

import contextlib
import os
import signal
import site
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.running_backend import free_port

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = ROOT / ".venv-toolkit"
SECOND_GENERATION = Path(__file__).parent / "second_generation"
START_WITHIN_S = 60.0
MODEL = "from ml_backend.toolkit import CellBackend\n"


@dataclass(frozen=True, kw_only=True)
class ToolkitServer:
    """A server of the toolkit."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def server_pid(self) -> int:
        """Return the process that answers: the command starts a shell, and that starts Python."""
        found = [
            int(folder.name)
            for folder in Path("/proc").iterdir()
            if folder.name.isdigit() and _runs_the_server(folder, self.process.pid)
        ]
        return min(found)  # its own children, one for each event, have later numbers


def is_toolkit_installed() -> bool:
    """Return whether `make` has made its environment."""
    return (ENVIRONMENT / "bin" / "label-studio-ml").exists()


def layered_environment(folder: Path) -> Path:
    """Return an environment of the toolkit's packages over ours, as after installing both in one.

    The toolkit pins old versions of Flask and others; its own come first.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = folder / "lib" / name / "site-packages"
    layers = [ENVIRONMENT / "lib" / name / "site-packages", *map(Path, site.getsitepackages())]
    lines = [f"import site; site.addsitedir({str(layer)!r})" for layer in layers]
    (own / "layers.pth").write_text("\n".join(lines) + "\n")
    script = folder / "bin" / "label-studio-ml"
    script.write_text(
        f"#!{folder / 'bin' / 'python'}\nfrom label_studio_ml.server import main\nmain()\n"
    )
    script.chmod(0o755)
    return folder


@contextmanager
def toolkit_server(
    folder: Path, environment: Path, settings: Mapping[str, str]
) -> Iterator[ToolkitServer]:
    """Make a toolkit project with our adapter and start it; stop it at the end.

    Args:
        folder: For the project.
        environment: That the toolkit is installed in.
        settings: Environment variables.
    """
    variables = _prepared(folder, environment, settings)
    program = str(environment / "bin" / "label-studio-ml")
    subprocess.run(
        [program, "init", "cells", "--script", "model.py:CellBackend"],
        cwd=folder,
        env=variables,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    port = free_port()
    command = [program, "start", "cells", "--port", str(port), "--host", "127.0.0.1"]
    with _started(command, folder, variables, port) as server:
        yield server


@contextmanager
def second_generation_server(
    folder: Path, environment: Path, settings: Mapping[str, str]
) -> Iterator[ToolkitServer]:
    """Start the stand-in for the toolkit's 2.x with our adapter; stop it at the end.

    Args:
        folder: For its `model.py`.
        environment: That has Flask and our package.
        settings: Environment variables.
    """
    variables = _prepared(folder, environment, settings)
    variables["PYTHONPATH"] = str(SECOND_GENERATION)
    port = free_port()
    command = [str(environment / "bin" / "python"), "-m", "label_studio_ml.api", str(port)]
    with _started(command, folder, variables, port) as server:
        yield server


def _prepared(folder: Path, environment: Path, settings: Mapping[str, str]) -> dict[str, str]:
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(MODEL)
    return {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}",
        **settings,
    }


@contextmanager
def _started(
    command: list[str], folder: Path, variables: Mapping[str, str], port: int
) -> Iterator[ToolkitServer]:
    log = folder / "server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = ToolkitServer(url=f"http://127.0.0.1:{port}", log=log, process=process)
    try:
        _wait_until_up(server)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_up(server: ToolkitServer) -> None:
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        try:
            if httpx.get(f"{server.url}/health", timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise AssertionError(f"the toolkit's server is not up:\n{server.log.read_text()[-4000:]}")


def _runs_the_server(folder: Path, group: int) -> bool:
    try:
        words = (folder / "cmdline").read_bytes().split(b"\0")
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    is_ours = len(fields) > 2 and int(fields[2]) == group
    return is_ours and words[0] == b"python" and words[1].endswith(b"_wsgi.py")
