"""A real Label Studio on this machine, for the demo and for the end-to-end tests."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from tools.leash import let_go, start_leashed

EMAIL = "demo@example.com"
PASSWORD = "cells-demo"  # noqa: S105 - of a server on loopback, printed for whoever started it
START_WITHIN_S = 240.0
ACCOUNTS = "accounts.json"
STATE = Path(__file__).resolve().parents[1] / ".demo"  # what the demo leaves for its next start

QUIET = {
    "COLLECT_ANALYTICS": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    "LATEST_VERSION_CHECK": "false",
    "FEATURE_FLAGS_OFFLINE": "true",
}
GUARDS_OFF = {
    "ML_BLOCK_LOCAL_IP": "false",  # lets it connect a backend on a private address
    "SSRF_PROTECTION_ENABLED": "false",  # lets it send webhooks there
}


@dataclass(frozen=True, kw_only=True)
class Accounts:
    """The two kinds of API key of the one user."""

    legacy_token: str
    personal_access_token: str


def find_label_studio() -> Path | None:
    """Return the program `label-studio`: LABEL_STUDIO_BIN, else the one that `make` installs."""
    named = os.environ.get("LABEL_STUDIO_BIN")
    installed = Path(__file__).parents[1] / ".venv-label-studio" / "bin" / "label-studio"
    program = Path(named) if named else installed
    return program if program.exists() else None


def free_port(wanted: int = 0) -> int:
    """Return `wanted` when nobody listens on it, else a port that is free."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no port is free")


class LabelStudioServer:
    """Label Studio in a process of its own; a context manager."""

    def __init__(
        self,
        program: Path,
        data_dir: Path,
        *,
        port: int,
        environment: Mapping[str, str] = GUARDS_OFF,
        seed: Path | None = None,
    ) -> None:
        """Nothing starts yet.

        Args:
            program: `label-studio` in an environment of its own.
            data_dir: for its database and uploads; made when it is missing.
            port: on loopback.
            environment: what differs from this process's environment.
            seed: a folder that `make_seed` made; copied into a new `data_dir`, it saves the time
                to make the tables.
        """
        self.url = f"http://127.0.0.1:{port}"
        self.data_dir = data_dir
        self.log = data_dir / "label-studio.log"
        self._program = program
        self._port = port
        self._environment = environment
        self._seed = seed
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LabelStudioServer:
        try:
            self.launch()
            self.wait_until_up()
        except BaseException:  # also Ctrl-C while it starts: nothing may stay behind
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def accounts(self) -> Accounts:
        """The API keys; a server made from a seed has them at once."""
        return read_accounts(self.data_dir)

    def launch(self, *options: str) -> None:
        """Start the process without waiting for it."""
        if self._seed is not None and not self.data_dir.exists():
            shutil.copytree(self._seed, self.data_dir)
        self.data_dir.mkdir(parents=True, exist_ok=True)
        command: list[str | Path] = [
            self._program,
            "start",
            "--no-browser",
            "--internal-host",
            "127.0.0.1",
        ]
        command += ["--port", str(self._port), "--data-dir", self.data_dir, *options]
        inherited = {
            name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ
        }
        with self.log.open("ab") as log:
            self._process = start_leashed(
                command,
                environment={
                    **inherited,
                    **QUIET,
                    "LABEL_STUDIO_HOST": self.url,
                    **self._environment,
                },
                folder=self.data_dir,
                log=log,
            )

    def wait_until_up(self) -> None:
        """Wait until it answers.

        Raises:
            RuntimeError: with the end of its log, when it does not.
        """
        deadline = time.monotonic() + START_WITHIN_S
        while time.monotonic() < deadline and self.is_running:
            try:
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                pass  # not yet
            time.sleep(0.2)
        raise RuntimeError(f"Label Studio did not start; the end of its log:\n{self.log_tail()}")

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def log_tail(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""

    def stop(self) -> None:
        """Stop the process and wait until it is gone."""
        if self._process is not None:
            let_go(self._process)

    def session(self) -> httpx.Client:
        """Return a client that is logged in as the browser of a person is."""
        client = httpx.Client(base_url=self.url, timeout=300.0)
        client.get("/user/login/")
        form = {
            "email": EMAIL,
            "password": PASSWORD,
            "persist_session": "on",
            "csrfmiddlewaretoken": client.cookies["csrftoken"],
        }
        answer = client.post("/user/login/", data=form, headers={"Referer": f"{self.url}/"})
        if answer.status_code != 302:
            raise RuntimeError(f"Label Studio refused the login with {answer.status_code}")
        client.headers["X-CSRFToken"] = client.cookies["csrftoken"]
        client.headers["Referer"] = f"{self.url}/"
        return client


def read_accounts(folder: Path) -> Accounts:
    """Return the API keys that `make_seed` made."""
    return Accounts(**json.loads((folder / ACCOUNTS).read_text()))


def shared_seed(program: Path) -> Path:
    """Return the seed of this release of Label Studio, made once for the demo and all tests."""
    packages = sorted(program.resolve().parents[1].glob("lib/python*/site-packages"))
    installed = sorted(packages[0].glob("label_studio-*.dist-info")) if packages else []
    release = installed[0].name.removesuffix(".dist-info") if installed else "label_studio"
    return make_seed(program, STATE / "seeds" / release)


def make_seed(program: Path, folder: Path) -> Path:
    """Make a data folder with all tables, the user and both API keys, unless it is there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test processes want it at once
        if not (folder / ACCOUNTS).exists():
            _make_seed(program, folder)
    return folder


def _make_seed(program: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # of a start that was interrupted
    token = secrets.token_hex(20)
    server = LabelStudioServer(program, folder, port=free_port())
    try:
        # these options count only for a new data folder
        server.launch(
            *("--username", EMAIL, "--password", PASSWORD, "--user-token", token),
            "--enable-legacy-api-token",
        )
        server.wait_until_up()
        with closing(server.session()) as session:
            personal = session.post("/api/token/").raise_for_status().json()["token"]
    finally:
        server.stop()
    accounts = Accounts(legacy_token=token, personal_access_token=personal)
    aside = folder / f"{ACCOUNTS}.part"
    aside.write_text(json.dumps(asdict(accounts)))
    os.replace(aside, folder / ACCOUNTS)  # its being there says that the folder is whole
