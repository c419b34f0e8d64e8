"""A small project with annotated images, and trainers that learn from it, for tests.

The images are discs on noise: a few steps of training take a second, so that a kill hits any
moment of a session.
"""

from __future__ import annotations

import io
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as PillowImage

from ml_backend.domain import LabelImage, ProjectKey, Segmentation
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.labelstudio.results import build_result
from ml_backend.learning import (
    Annotation,
    LabelledTask,
    Session,
    TrainingParameters,
    Trigger,
)
from ml_backend.store.annotations import AnnotationLedger
from ml_backend.store.database import Database
from ml_backend.store.projects import Projects
from ml_backend.store.sessions import Sessions
from ml_backend.store.versions import Versions
from tests.image_server import ImageServer, Reply
from tests.running_backend import STOP_WITHIN_S, processes_of

PROJECT = ProjectKey(origin="http://127.0.0.1:9", project_id=1, created_at=1_795_215_681)
CONFIG = (
    '<View model_training="manual" model_promote="always"><Image name="image" value="$image"/>'
    '<PolygonLabels name="cells" toName="image"><Label value="Cell"/></PolygonLabels></View>'
)
SIZE = 96
QUICK = TrainingParameters(n_epochs=8, n_samples=8, batch_size=4, crop=64, validation_interval=2)


def discs(seed: int) -> tuple[bytes, LabelImage]:
    """Return a PNG with bright discs, and their instances."""
    noise = np.random.default_rng(seed)
    labels = np.zeros((SIZE, SIZE), np.int32)
    number = 0
    for row in range(12, SIZE - 8, 24):
        for column in range(12, SIZE - 8, 24):
            number += 1
            centre = (column + int(noise.integers(-2, 3)), row + int(noise.integers(-2, 3)))
            cv2.circle(labels, centre, int(noise.integers(6, 9)), number, -1)
    pixels = noise.integers(0, 60, labels.shape) + np.where(labels > 0, 120, 20)
    stored = io.BytesIO()
    PillowImage.fromarray(pixels.astype(np.uint8)).save(stored, "PNG")
    return stored.getvalue(), labels


@dataclass(frozen=True, kw_only=True)
class TrainingSite:
    """The records of a project, and where its images are served."""

    folder: Path
    data_dir: Path
    images: ImageServer
    sessions: Sessions
    versions: Versions
    ledger: AnnotationLedger

    def annotate(self, task: int, labels: LabelImage | None = None) -> None:
        """Put an annotation of a task into the ledger, as Label Studio's events would."""
        png, truth = discs(task)
        self.images.routes[f"/{task}.png"] = Reply(body=png)
        found = Segmentation(
            labels=truth if labels is None else labels,
            scores=np.ones(truth.max(), np.float32),
            diameter=15.0,
        )
        self.ledger.record(
            PROJECT,
            Annotation(
                task_id=task,
                annotation_id=100 + task,
                updated_at=time.time(),
                result=build_result({"cells": found}, parse_label_config(CONFIG)).regions,
            ),
            LabelledTask(task_id=task, data={"image": f"{self.images.origin}/{task}.png"}),
        )

    def request(self, parameters: TrainingParameters = QUICK) -> Session:
        """Ask for a session."""
        return self.sessions.request(
            PROJECT, controls=["cells"], trigger=Trigger.PERSON, parameters=parameters
        )

    def now(self, session: Session) -> Session:
        """Return a session as it stands."""
        found = self.sessions.get(session.id)
        assert found is not None
        return found

    def environment(self) -> dict[str, str]:
        """Return the settings of processes that work for this project."""
        return {
            **os.environ,
            "DATA_DIR": str(self.data_dir),
            "ALLOWED_HOSTS": "127.0.0.1",
            "MODEL": "nuclei-1",
            "DEVICE": "cpu",
            "TRAINING_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }

    def start_trainer(self, *, largest_file: int | None = None) -> subprocess.Popen[bytes]:
        """Start a trainer, perhaps on a disk that takes no larger file (bytes)."""

        def limit() -> None:
            if largest_file is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

        with (self.folder / "trainer.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "ml_backend", "trainer"],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=limit,
            )

    def log(self) -> str:
        """Return the end of what trainers and their trainings have logged."""
        path = self.folder / "trainer.log"
        return path.read_text()[-8000:] if path.exists() else ""

    def processes(self, kind: str = "") -> list[int]:
        """Return the process ids of everything that works here, or of one command."""
        found = processes_of(self.data_dir)
        return sorted(pid for pid, line in found.items() if f" ml_backend {kind}" in line)

    def kill_all(self) -> None:
        """Kill everything that works here."""
        for pid in processes_of(self.data_dir):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


@contextmanager
def training_site(folder: Path, *, tasks: int = 4) -> Iterator[TrainingSite]:
    """Make a project with annotated tasks; whatever still runs at the end is killed."""
    data_dir = folder / "backend-data"
    data_dir.mkdir()
    database = Database(f"sqlite:///{data_dir / 'records.sqlite3'}")
    database.migrate()
    with ImageServer() as images:
        site = TrainingSite(
            folder=folder,
            data_dir=data_dir,
            images=images,
            sessions=Sessions(database),
            versions=Versions(database),
            ledger=AnnotationLedger(database),
        )
        Projects(database).record(PROJECT, hostname=None, access_token=None, label_config=CONFIG)
        for task in range(1, tasks + 1):
            site.annotate(task)
        try:
            yield site
        finally:
            deadline = time.monotonic() + STOP_WITHIN_S
            while processes_of(data_dir) and time.monotonic() < deadline:
                site.kill_all()
                time.sleep(0.1)
            database.close()
