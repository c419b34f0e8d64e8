"""Our backend as the demo starts it: `ml-backend serve` on a data folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tools.label_studio_server import free_port
from tools.leash import let_go, start_leashed

UP_WITHIN_S = 300.0
# settings of the person who starts the demo that must not reach its backend
NOT_INHERITED = {
    "ALLOWED_HOSTS",
    "BASIC_AUTH_PASS",
    "BASIC_AUTH_USER",
    "DATABASE_URL",
    "ENGINE_SECRET",
    "ENGINE_URL",
    "REDIS_URL",
}


class DemoBackend:
    """The backend in processes of its own; a context manager."""

    def __init__(
        self, data_dir: Path, *, label_studio_url: str, api_key: str, webhook_secret: str
    ) -> None:
        port = free_port(9090)
        self.url = f"http://127.0.0.1:{port}"
        self.webhook_secret = webhook_secret
        self._log = data_dir / "backend.log"
        self._settings = {
            "PORT": str(port),
            "HOST": "127.0.0.1",
            "DATA_DIR": str(data_dir),
            "LABEL_STUDIO_URL": label_studio_url,
            "LABEL_STUDIO_API_KEY": api_key,
            "WEBHOOK_SECRET": webhook_secret,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> DemoBackend:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        with self._log.open("ab") as log:
            self._process = start_leashed(
                [sys.executable, "-m", "ml_backend", "serve"],
                environment={**inherited, **self._settings},
                folder=self._log.parent,
                log=log,
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            let_go(self._process)

    @property
    def is_running(self) -> bool:
        """Whether its supervisor is there."""
        return self._process is not None and self._process.poll() is None

    def log_tail(self) -> str:
        """Return the end of its log."""
        return self._log.read_text(errors="replace")[-3000:] if self._log.exists() else ""

    def wait_until_up(self) -> None:
        """Wait until /health answers 200.

        Raises:
            RuntimeError: with the end of its log, when it does not.
        """
        deadline = time.monotonic() + UP_WITHIN_S
        while time.monotonic() < deadline and self.is_running:
            try:
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                pass  # not yet
            time.sleep(0.2)
        raise RuntimeError(f"The backend did not start; the end of its log:\n{self.log_tail()}")
