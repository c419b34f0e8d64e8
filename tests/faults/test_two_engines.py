"""Two engines on the same records: each prediction is computed once, also when one is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.faults.test_processes import CONFIG, PROJECT
from tests.image_urls import nuclei_url
from tests.running_backend import RunningBackend, free_port, running_backend

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes through /proc"),
]
SECRET = "shared by both"


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An engine on its own port."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def predict(
        self, version: str, project: str, images: dict[int, str]
    ) -> list[dict[str, object]]:
        body = {
            "project": project,
            "release": version,
            "label_config": CONFIG,
            "tasks": [{"id": number, "data": {"image": url}} for number, url in images.items()],
            "budget_s": 60,
        }
        headers = {"Authorization": f"Bearer {SECRET}"}
        answer = httpx.post(f"{self.url}/predict", json=body, headers=headers, timeout=90)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["results"])

    def computed(self) -> int:
        return self.log.read_text().count("task predicted")


@contextmanager
def engine(folder: Path, backend: RunningBackend) -> Iterator[Engine]:
    port = free_port()
    log = folder / f"engine-{port}.log"
    environment = {
        **os.environ,
        "PORT": str(port),
        "DATA_DIR": str(backend.data_dir),
        "ENGINE_SECRET": SECRET,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ml_backend", "engine"],
            env=environment,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )
    try:
        started = Engine(url=f"http://127.0.0.1:{port}", log=log, process=process)
        _wait_for(started)
        yield started
    finally:
        process.kill()
        process.wait()


def _wait_for(engine: Engine) -> None:
    deadline = time.monotonic() + 120
    headers = {"Authorization": f"Bearer {SECRET}"}
    while time.monotonic() < deadline:
        assert engine.process.poll() is None, engine.log.read_text()
        try:
            httpx.get(f"{engine.url}/health", headers=headers, timeout=5).raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.3)
    raise AssertionError(engine.log.read_text())


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBackend]:
    with running_backend(tmp_path_factory.mktemp("two-engines")) as running:
        running.wait_until_up()
        yield running


@pytest.fixture(scope="module")
def version(backend: RunningBackend) -> str:
    body = {"project": PROJECT, "schema": CONFIG, "hostname": "http://localhost:8080"}
    answer = httpx.post(f"{backend.url}/setup", json=body, timeout=10)
    return str(answer.json()["model_version"])


KEY = f"http://localhost:8080#{PROJECT}"


def test_the_same_tasks_asked_of_two_engines_are_computed_once(
    tmp_path: Path, backend: RunningBackend, version: str
) -> None:
    images = {number: nuclei_url(seed=number) for number in range(1, 5)}
    answers: dict[str, list[dict[str, object]]] = {}
    with engine(tmp_path, backend) as one, engine(tmp_path, backend) as other:

        def ask(which: Engine) -> None:
            answers[which.url] = which.predict(version, KEY, images)

        threads = [threading.Thread(target=ask, args=(which,)) for which in (one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=90)

        assert one.computed() + other.computed() == len(images)
        assert answers[one.url] == answers[other.url]
        assert all(entry["model_version"] == version for entry in answers[one.url])


def broken_off(engine: Engine, version: str, images: dict[int, str]) -> None:
    with pytest.raises(httpx.HTTPError):
        engine.predict(version, KEY, images)


def test_what_a_killed_engine_had_in_work_is_taken_over(
    tmp_path: Path, backend: RunningBackend, version: str
) -> None:
    images = {number: nuclei_url(seed=number, size=512) for number in range(101, 107)}
    with engine(tmp_path, backend) as one, engine(tmp_path, backend) as other:
        failing = threading.Thread(target=lambda: broken_off(one, version, images))
        failing.start()
        deadline = time.monotonic() + 60
        while one.computed() < 1 and time.monotonic() < deadline:
            time.sleep(0.05)

        os.kill(one.process.pid, signal.SIGKILL)
        answers = other.predict(version, KEY, images)
        failing.join(timeout=90)

        assert len(answers) == len(images)
        assert all(entry["model_version"] == version for entry in answers)


def test_an_engine_refuses_those_who_do_not_know_its_secret(
    tmp_path: Path, backend: RunningBackend
) -> None:
    with engine(tmp_path, backend) as one:
        refused = httpx.post(f"{one.url}/predict", json={}, timeout=10)

    assert refused.status_code == 401
