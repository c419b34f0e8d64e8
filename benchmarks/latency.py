"""How fast /health and /setup answer while the engine is saturated.

    python benchmarks/latency.py [--seconds 30] [--clients 8]

Starts `ml-backend serve` with a fresh data folder, keeps `--clients` prediction requests open all
the time (each with new images, so nothing is answered from kept results) and meanwhile asks
/health and /setup as Label Studio does: one after the other, on connections of their own. Prints
p50, p99 and the largest, idle and saturated, as a table and as JSON.

The floor is the idle time in the same run: the answers come from SQL and never touch the engine,
so the ratio saturated / idle says how much the engine is felt.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from ml_backend.imaging.samples import fluorescent_nuclei
from ml_backend.processes.supervisor import open_listener

CONFIG = (
    '<View><Image name="image" value="$image"/><PolygonLabels name="cells" toName="image">'
    '<Label value="Cell"/></PolygonLabels></View>'
)
SETUP = {"project": "1.1795215681", "schema": CONFIG, "hostname": "http://localhost:8080"}
SIZE = 512  # pixels, both ways


@contextmanager
def running_backend() -> Iterator[str]:
    """Start the whole backend; yield its address."""
    with open_listener("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PORT": str(port), "DATA_DIR": folder, "LOG_LEVEL": "WARNING"}
        process = subprocess.Popen(
            [sys.executable, "-m", "ml_backend", "serve"], env=environment, start_new_session=True
        )
        try:
            yield _wait_until_up(f"http://127.0.0.1:{port}")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


def _wait_until_up(url: str) -> str:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health", timeout=1).status_code == 200:
                return url
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise SystemExit("the backend did not come up in 180 s")


def image_url(seed: int) -> str:
    """Return a data: URL of a picture nobody has asked for before."""
    picture, _ = fluorescent_nuclei(seed=seed, shape=(SIZE, SIZE), count=60)
    _, encoded = cv2.imencode(".png", np.asarray(picture))
    return "data:image/png;base64," + base64.b64encode(encoded.tobytes()).decode()


def measure(url: str, seconds: float) -> dict[str, list[float]]:
    """Return the answer times of /health and /setup in milliseconds, asked in turn."""
    times: dict[str, list[float]] = {"/health": [], "/setup": []}
    deadline = time.monotonic() + seconds
    with httpx.Client(base_url=url, timeout=30) as client:
        while time.monotonic() < deadline:
            for path in times:
                started = time.perf_counter()
                answer = client.get(path) if path == "/health" else client.post(path, json=SETUP)
                times[path].append((time.perf_counter() - started) * 1000)
                answer.raise_for_status()
            time.sleep(0.02)
    return times


@contextmanager
def saturated(url: str, clients: int) -> Iterator[list[int]]:
    """Keep `clients` prediction requests open; yield the list of tasks predicted so far."""
    stop = threading.Event()
    done: list[int] = []
    numbers = itertools.count(1)

    def keep_asking() -> None:
        with httpx.Client(base_url=url, timeout=100) as client:
            while not stop.is_set():
                number = next(numbers)
                task = {"id": number, "data": {"image": image_url(number)}}
                body = {"tasks": [task], "project": SETUP["project"], "label_config": CONFIG}
                answer = client.post("/predict", json=body).json()
                if answer["results"][0]:
                    done.append(number)

    threads = [threading.Thread(target=keep_asking) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(3)
        yield done
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def summary(times: list[float]) -> dict[str, float]:
    """Return count, p50, p99 and the largest of times in milliseconds."""
    p50, p99 = np.percentile(times, [50, 99])
    numbers = {"requests": len(times), "p50_ms": p50, "p99_ms": p99, "max_ms": max(times)}
    return {name: round(float(value), 1) for name, value in numbers.items()}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    with running_backend() as url:
        httpx.post(f"{url}/setup", json=SETUP, timeout=30).raise_for_status()
        idle = measure(url, min(10.0, arguments.seconds))
        with saturated(url, arguments.clients) as done:
            before = len(done)
            busy = measure(url, arguments.seconds)
            predicted = len(done) - before
    report: dict[str, object] = {"clients": arguments.clients, "tasks_predicted": predicted}
    table = Table("route", "state", "requests", "p50 ms", "p99 ms", "max ms")
    for path in idle:
        for state, times in (("idle", idle[path]), ("saturated", busy[path])):
            numbers = summary(times)
            report[f"{path} {state}"] = numbers
            table.add_row(path, state, *(str(value) for value in numbers.values()))
    Console().print(table)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
