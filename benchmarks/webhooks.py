"""How fast /webhook answers while a session trains and the engine predicts.

    python benchmarks/webhooks.py [--seconds 30] [--clients 4] [--label-studio PATH]

Starts `ml-backend serve` with a fresh data folder, annotates a few images through /webhook, presses
Start Training, keeps `--clients` prediction requests open, and meanwhile sends annotations as Label
Studio does: 50 polygons of 24 points each. Prints p50, p99 and the largest, idle and busy.

With `--label-studio` (the program of an environment that has it) a real one is started as well, and
the time that it takes to save an annotation is compared without and with our webhook, in turn.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from latency import CONFIG, SETUP, image_url, running_backend, saturated, summary
from rich.console import Console
from rich.table import Table

from ml_backend.domain import Segmentation
from ml_backend.imaging.samples import fluorescent_nuclei
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.labelstudio.results import build_result
from tools.label_studio_server import GUARDS_OFF, LabelStudioServer, free_port, shared_seed
from tools.label_studio_user import LabelStudioUser

SIZE = 512  # pixels, both ways
ANNOTATED = 6  # images before training starts
STARTS_WITHIN_S = 120.0
PROJECT = {"id": 1, "created_at": "2026-11-20T23:01:21Z", "min_annotations_to_start_training": 0}
_numbers = itertools.count(1)


def polygons(count: int = 50, points: int = 24) -> list[dict[str, Any]]:
    """Return regions of a realistic size: 60 KB of JSON."""
    angles = [2 * math.pi * index / points for index in range(points)]
    return [
        {
            "id": f"region{number}",
            "type": "polygonlabels",
            "from_name": "cells",
            "to_name": "image",
            "original_width": SIZE,
            "original_height": SIZE,
            "image_rotation": 0,
            "value": {
                "closed": True,
                "polygonlabels": ["Cell"],
                "points": [
                    [
                        10 + 8 * (number % 10) + 3 * math.cos(angle),
                        10 + 16 * (number // 10) + 3 * math.sin(angle),
                    ]
                    for angle in angles
                ],
            },
        }
        for number in range(count)
    ]


def event(task: int, address: str, regions: list[dict[str, Any]]) -> dict[str, Any]:
    """Return Label Studio's event of a new annotation."""
    number = next(_numbers)
    moment = f"2026-11-20T01:00:00.{number:06d}Z"
    annotation = {
        "id": number,
        "task": task,
        "project": PROJECT["id"],
        "result": regions,
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": moment,
        "updated_at": moment,
        "completed_by": 1,
        "parent_prediction": None,
    }
    return {
        "action": "ANNOTATION_CREATED",
        "annotation": annotation,
        "task": {"id": task, "data": {"image": address}},
        "project": PROJECT,
    }


def measure(send: Callable[[], object], seconds: float) -> list[float]:
    """Return how long each call took in milliseconds, one after the other."""
    times = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        started = time.perf_counter()
        send()
        times.append((time.perf_counter() - started) * 1000)
        time.sleep(0.02)
    return times


def train(client: httpx.Client) -> str:
    """Annotate a few images, press Start Training, and return the session once it runs."""
    config = parse_label_config(CONFIG)
    for task in range(1, ANNOTATED + 1):
        _, truth = fluorescent_nuclei(seed=task, shape=(SIZE, SIZE), count=60)
        scores = np.ones(int(truth.max()), np.float32)
        found = Segmentation(labels=truth, scores=scores, diameter=30.0)
        regions = build_result({"cells": found}, config).regions
        client.post("/webhook", json=event(task, image_url(task), regions)).raise_for_status()
    started = client.post("/webhook", json={"action": "START_TRAINING", "project": PROJECT})
    job = started.raise_for_status().json()["job"]
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline:
        status = client.post("/job_status", json={"job": job}).json()
        if status["state"] == "running":
            return str(status["state"])
        if status["state"] not in ("queued", "running"):
            raise SystemExit(f"the session does not train: {status}")
        time.sleep(0.5)
    raise SystemExit("the session did not start")


def measure_webhook(seconds: float, clients: int) -> dict[str, list[float]]:
    """Return the answer times of /webhook in milliseconds, idle and busy."""
    regions = polygons()
    with running_backend() as url, httpx.Client(base_url=url, timeout=30) as client:
        client.post("/setup", json=SETUP).raise_for_status()

        def send() -> None:
            task = 1000 + next(_numbers)
            client.post("/webhook", json=event(task, "/data/none.png", regions)).raise_for_status()

        idle = measure(send, min(10.0, seconds))
        train(client)
        with saturated(url, clients):
            return {"idle": idle, "training and predicting": measure(send, seconds)}


def measure_saving(program: Path, repeats: int) -> dict[str, float]:
    """Return the median milliseconds of saving an annotation, without and with our webhook."""
    regions = polygons()
    times: dict[str, list[float]] = {"without": [], "with": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        running_backend() as url,
        LabelStudioServer(
            program,
            Path(folder) / "label-studio",
            port=free_port(),
            seed=shared_seed(program),
            environment=GUARDS_OFF,
        ) as label_studio,
        closing(label_studio.session()) as session,
    ):
        user = LabelStudioUser(session)
        projects = {name: user.create_project(name, CONFIG) for name in times}
        hook = {"project": projects["with"], "url": f"{url}/webhook", "send_payload": True}
        user.ask("POST", "/api/webhooks/", json={**hook, "send_for_all_actions": True})
        for project in projects.values():
            user.import_tasks(project, [{"image": "/data/none.png"} for _ in range(repeats)])
        tasks = {name: user.task_ids(project) for name, project in projects.items()}
        for index in range(repeats):  # in turn, so that both meet the same machine
            for name, found in times.items():
                started = time.perf_counter()
                user.submit(tasks[name][index], regions)
                found.append((time.perf_counter() - started) * 1000)
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--label-studio", type=Path, default=None, help="the program label-studio")
    parser.add_argument("--annotations", type=int, default=40, help="saved per way")
    arguments = parser.parse_args()
    report: dict[str, object] = {"clients": arguments.clients}
    table = Table("/webhook", "requests", "p50 ms", "p99 ms", "max ms")
    for state, times in measure_webhook(arguments.seconds, arguments.clients).items():
        numbers = summary(times)
        report[state] = numbers
        table.add_row(state, *(str(value) for value in numbers.values()))
    Console().print(table)
    if arguments.label_studio is not None:
        saving = measure_saving(arguments.label_studio, arguments.annotations)
        report["saving an annotation, median ms"] = saving
        Console().print(
            f"saving an annotation: {saving['without']:.0f} ms without, {saving['with']:.0f} ms "
            f"with our webhook (medians of {arguments.annotations})"
        )
    print(json.dumps(report))


if __name__ == "__main__":
    main()
