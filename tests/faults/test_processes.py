"""Processes that are killed, and what is left of them."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import httpx
import pytest

from ml_backend.processes.supervisor import open_listener
from tests.running_backend import (
    STOP_WITHIN_S,
    RunningBackend,
    running_backend,
    wait_until_gone,
)

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes through /proc"),
]

CONFIG = (
    '<View><Image name="image" value="$image"/><PolygonLabels name="cells" toName="image">'
    '<Label value="Cell"/></PolygonLabels></View>'
)
PROJECT = "1.1795215681"
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+"
    "kcQAAAABJRU5ErkJggg=="
)


def setup(backend: RunningBackend) -> httpx.Response:
    body = {"project": PROJECT, "schema": CONFIG, "hostname": "http://localhost:8080"}
    return httpx.post(f"{backend.url}/setup", json=body, timeout=10)


def predict(backend: RunningBackend, task_id: int) -> dict[str, object]:
    body = {
        "tasks": [{"id": task_id, "data": {"image": PIXEL}}],
        "project": PROJECT,
        "label_config": CONFIG,
    }
    answer = httpx.post(f"{backend.url}/predict", json=body, timeout=100)
    assert answer.status_code == 200
    (entry,) = answer.json()["results"]
    return dict(entry)


def test_a_killed_engine_comes_back_and_predicts_again(tmp_path: Path) -> None:
    with running_backend(tmp_path) as backend:
        backend.wait_until_up()
        version = setup(backend).json()["model_version"]
        before = predict(backend, 1)
        engine = backend.process_named("engine")

        os.kill(engine, signal.SIGKILL)
        health = httpx.get(f"{backend.url}/health", timeout=5)
        after = predict(backend, 2)

        assert health.status_code == 200
        assert before["model_version"] == after["model_version"] == version
        assert backend.process_named("engine") != engine


def test_a_killed_web_process_takes_its_workers_along_and_comes_back(tmp_path: Path) -> None:
    with running_backend(tmp_path) as backend:
        backend.wait_until_up()
        before = {pid for pid, line in backend.processes().items() if " ml_backend web " in line}

        os.kill(min(before), signal.SIGKILL)
        deadline = time.monotonic() + 30
        while before & set(backend.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        backend.wait_until_up()

        assert len(before) >= 2  # the master and a worker
        assert not before & set(backend.processes())


def test_sigterm_stops_everything_in_time(tmp_path: Path) -> None:
    with running_backend(tmp_path) as backend:
        backend.wait_until_up()

        backend.process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        code = backend.process.wait(timeout=STOP_WITHIN_S)
        left = wait_until_gone(backend.data_dir, within_s=1)

        assert code == 0
        assert left == {}
        assert time.monotonic() - started < STOP_WITHIN_S  # Label Studio's containers get no more


def test_nothing_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    with running_backend(tmp_path) as backend:
        backend.wait_until_up()
        assert len(backend.processes()) >= 4  # supervisor, engine, web and its worker, trainer

        backend.process.kill()
        left = wait_until_gone(backend.data_dir)

        assert left == {}


def test_a_port_that_is_taken_is_one_clear_sentence(tmp_path: Path) -> None:
    with open_listener("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])

        with running_backend(tmp_path, {"PORT": port}) as backend:
            code = backend.process.wait(timeout=60)
            text = backend.log.read_text()

        assert code == 78
        assert f"PORT {port}" in text
        assert "Traceback" not in text


def test_a_model_that_does_not_exist_stops_everything_with_one_sentence(tmp_path: Path) -> None:
    with running_backend(tmp_path, {"MODEL": "/nowhere/my-model"}) as backend:
        code = backend.process.wait(timeout=120)
        text = backend.log.read_text()

    assert code == 78
    assert "/nowhere/my-model" in text
    assert "Traceback" not in text
    assert wait_until_gone(backend.data_dir, within_s=1) == {}


def test_records_and_versions_survive_a_kill(tmp_path: Path) -> None:
    with running_backend(tmp_path) as backend:
        backend.wait_until_up()
        version = setup(backend).json()["model_version"]
        backend.process.kill()
        wait_until_gone(backend.data_dir)

    with running_backend(tmp_path) as again:
        again.wait_until_up()

        assert setup(again).json()["model_version"] == version
