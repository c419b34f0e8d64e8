"""People who predict while versions are swapped, and what tells which network answered them.

The networks answer so differently that an answer tells which kind made it: the built-in one finds
whole cells, one of its shifted kin the cores of them, the other nothing.
"""

from __future__ import annotations

import base64
import itertools
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np

from ml_backend.domain import Component, ProjectKey
from ml_backend.imaging.samples import fluorescent_nuclei
from ml_backend.learning import ActivationState
from ml_backend.store.database import Database
from ml_backend.store.projects import Projects
from ml_backend.store.versions import Versions
from tests.differing_networks import make_version
from tests.running_backend import RunningBackend

CONFIG = (
    '<View><Image name="image" value="$image"/><PolygonLabels name="cells" toName="image">'
    '<Label value="Cell"/></PolygonLabels></View>'
)
PROJECT = "1.1795215681"
SETUP = {"project": PROJECT, "schema": CONFIG, "hostname": "http://localhost:8080"}
SIZE = 128  # pixels, both ways
KINDS = {"whole": 0.0, "cores": -4.0, "none": -1000.0}  # bias of the cell probability
DIAMETER = 14.0  # pixels, so that no network searches for it
MARK = 1e-4  # between two versions of a kind: other weights, the same answer
SWAPPED_WITHIN_S = 60.0


@dataclass
class Answered:
    """What clients have seen."""

    seconds: list[float] = field(default_factory=list)
    kinds: dict[str, set[str]] = field(default_factory=dict)  # version -> kinds of its answers
    failed: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, seconds: float, version: str, kind: str) -> None:
        """Note an answer."""
        with self.lock:
            self.seconds.append(seconds)
            self.kinds.setdefault(version, set()).add(kind)

    def take_in(self, other: Answered) -> None:
        """Add what was seen at another time."""
        self.seconds += other.seconds
        self.failed += other.failed
        for version, kinds in other.kinds.items():
            self.kinds.setdefault(version, set()).update(kinds)

    def fail(self, reason: str) -> None:
        """Note a request that was not answered as it should be."""
        with self.lock:
            self.failed.append(reason)


class Clients:
    """Predicts without a pause, one image after the other, in several threads."""

    def __init__(self, url: str, count: int) -> None:
        self.url = url
        self.answered = Answered()
        self._numbers = itertools.count(1)
        self._picture = np.asarray(fluorescent_nuclei(seed=3, shape=(SIZE, SIZE), count=12)[0])
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=self._predict) for _ in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join()

    def take(self) -> Answered:
        """Return what was seen until now, and begin anew."""
        seen, self.answered = self.answered, Answered()
        return seen

    def _predict(self) -> None:
        with httpx.Client(timeout=100) as client:
            while not self._closing.is_set():
                number = next(self._numbers)
                task = {"id": number, "data": {"image": self._image(number)}}
                body = {"tasks": [task], "project": PROJECT, "label_config": CONFIG}
                answered, started = self.answered, time.perf_counter()
                try:
                    answer = client.post(f"{self.url}/predict", json=body)
                    answer.raise_for_status()
                    (entry,) = answer.json()["results"]
                    seconds = time.perf_counter() - started
                    answered.add(seconds, entry["model_version"], kind_of(entry["result"]))
                except (httpx.HTTPError, KeyError, ValueError) as error:
                    answered.fail(repr(error))

    def _image(self, number: int) -> str:
        # another corner pixel makes another file; what is found stays the same
        picture = self._picture.copy()
        picture[0, :4] = [number >> shift & 255 for shift in (0, 8, 16, 24)]
        encoded, data = cv2.imencode(".png", picture)
        if not encoded:
            raise ValueError("the picture was not encoded")
        return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()


def kind_of(result: list[dict[str, Any]]) -> str:
    """Return which kind of network found these polygons, "?" if none did."""
    area = sum(
        float(cv2.contourArea(np.asarray(region["value"]["points"], np.float32) / 100 * SIZE))
        for region in result
        if "points" in region.get("value", {})
    )
    # measured on this picture: 3900 to 4000 square pixels and 2300 to 2500
    for kind, least, most in (("none", 0, 1), ("cores", 1500, 3000), ("whole", 3400, 5500)):
        if least <= area < most:
            return kind
    return "?"


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A running backend, and its records to ask for swaps."""

    running: RunningBackend
    versions: Versions
    project: ProjectKey

    def swap(self, component: Component) -> str:
        """Have `component` served; return its version."""
        activation = self.versions.request(
            self.project, components={"cells": component}, reason="benchmark"
        )
        deadline = time.monotonic() + SWAPPED_WITHIN_S
        while time.monotonic() < deadline:
            newest = self.versions.history(self.project)[0]
            if newest.id == activation.id and newest.state is ActivationState.DONE:
                return str(newest.release)
            if newest.state is ActivationState.FAILED:
                raise RuntimeError(newest.message)
            time.sleep(0.2)
        raise RuntimeError("no engine carried the activation out")

    def memory_mb(self) -> float:
        """Return what the engine holds of the machine's memory."""
        status = Path(f"/proc/{self.running.process_named('engine')}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
        return int(line.split()[1]) / 1024


def make_network(folder: Path, number: int) -> tuple[str, Component]:
    """Return the kind and the component of a version with weights of its own."""
    kind = list(KINDS)[number % len(KINDS)]
    component = make_version(
        folder, f"v{number}", bias=KINDS[kind], diameter=DIAMETER, mark=MARK * number
    )
    return kind, component


def set_up(running: RunningBackend) -> Backend:
    """Introduce the project as Label Studio does; return the way to swap its versions."""
    httpx.post(f"{running.url}/setup", json=SETUP, timeout=10).raise_for_status()
    database = Database(f"sqlite:///{running.data_dir / 'records.sqlite3'}")
    found = Projects(database).find(PROJECT)
    if found is None:
        raise RuntimeError("/setup was not recorded")
    return Backend(running=running, versions=Versions(database), project=found.key)


def mixed_up(made_by: dict[str, str], *seen: Answered) -> list[str]:
    """Return a sentence for each version that another network answered for."""
    return [
        f"{version}: {sorted(kinds)} instead of {made_by[version]}"
        for answered in seen
        for version, kinds in answered.kinds.items()
        if version in made_by and kinds != {made_by[version]}
    ]
