"""Masks for programs through real processes: large answers, callers that go, engines that die."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from ml_backend.imaging.samples import fluorescent_nuclei
from tests.running_backend import RunningBackend, running_backend

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
]

URL = "/api/v1/infer"


def picture(tiles: int, seed: int = 5) -> bytes:
    """Return a PNG file of tiles x tiles fields of 500 pixels."""
    field, _ = fluorescent_nuclei(seed, (500, 500), 60)
    return cv2.imencode(".png", np.tile(field, (tiles, tiles)))[1].tobytes()


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBackend]:
    """Yield a whole backend."""
    folder = tmp_path_factory.mktemp("backend")
    with running_backend(folder, {"DEVICE": "cpu"}) as backend:
        backend.wait_until_up()
        yield backend


def worker_of(backend: RunningBackend) -> int:
    """Return the process that answers for the web: the one its master has forked."""
    return max(pid for pid, line in backend.processes().items() if " ml_backend web " in f"{line} ")


def memory_mb(process: int, name: str) -> float:
    """Return what the system says of a process's memory."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(name):
            return float(line.split()[1]) / 1e3
    raise AssertionError(name)


def incoming(backend: RunningBackend) -> list[str]:
    """Return what lies in the engine's own folder, its lock left out."""
    folders = [path for path in (backend.data_dir / "infer").iterdir() if path.is_dir()]
    return [str(path) for folder in folders for path in folder.iterdir() if path.name != ".lock"]


def test_the_web_process_holds_a_piece_of_a_large_answer(backend: RunningBackend) -> None:
    with httpx.Client(base_url=backend.url, timeout=600) as client:
        small = client.post(URL, files={"images": ("a.png", picture(1))})
        assert small.status_code == 200
        worker = worker_of(backend)
        Path(f"/proc/{worker}/clear_refs").write_text("5")
        before = memory_mb(worker, "VmRSS")
        size = 0
        form = {"return_flows": "true", "diameter": "22"}
        files = {"images": ("a.png", picture(3))}
        with client.stream("POST", URL, files=files, data=form) as answer:
            assert answer.status_code == 200
            for piece in answer.iter_raw():
                size += len(piece)

    assert size == int(answer.headers["content-length"])
    assert size > 70_000_000
    assert memory_mb(worker, "VmHWM") - before < 25
    assert incoming(backend) == []


def test_the_engine_stops_for_a_caller_who_has_gone(backend: RunningBackend) -> None:
    files = [("images", (f"{n}.png", picture(3, seed=n))) for n in range(5)]

    with suppress(httpx.ReadTimeout):
        httpx.post(backend.url + URL, files=files, timeout=httpx.Timeout(60, read=1))

    deadline = time.monotonic() + 60
    while incoming(backend) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert incoming(backend) == []
    assert '"images": 5' not in backend.log.read_text()  # as the engine says of what is complete


def test_an_engine_that_dies_meanwhile_is_a_problem_and_leaves_nothing(
    backend: RunningBackend,
) -> None:
    answers: list[httpx.Response] = []

    def ask() -> None:
        files = [("images", (f"{n}.png", picture(2))) for n in range(3)]
        answers.append(httpx.post(backend.url + URL, files=files, timeout=120))

    asking = threading.Thread(target=ask)
    asking.start()
    deadline = time.monotonic() + 30
    while not incoming(backend) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(backend.process_named("engine"), signal.SIGKILL)
    asking.join()

    (answer,) = answers
    assert answer.status_code in (502, 503)
    assert answer.json()["code"].startswith("engine.")
    deadline = time.monotonic() + 120
    status = 503
    while status == 503 and time.monotonic() < deadline:
        files = {"images": ("a.png", picture(1))}
        status = httpx.post(backend.url + URL, files=files, timeout=120).status_code
        time.sleep(0.5)
    assert status == 200
    assert incoming(backend) == []
