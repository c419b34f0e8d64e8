"""A prediction service on real records, with a fake fetcher and a fake segmenter."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from ml_backend.domain import (
    ChoicesControl,
    Classification,
    Component,
    FetchedFile,
    Image,
    LabelStudioAccess,
    Pixels,
    Priority,
    ProjectKey,
    Release,
    Segmentation,
    SegmentationOptions,
    Task,
    Urgency,
    priority_now,
)
from ml_backend.errors import ImageFetchError
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.service.predictions import PredictionRequest, PredictionService
from ml_backend.service.task_prediction import TaskPredictor
from ml_backend.store.database import Database
from ml_backend.store.deliveries import Deliveries
from ml_backend.store.open_requests import OpenRequests
from ml_backend.store.predictions import KeptPredictions

CONFIG = (
    '<View><Image name="image" value="$image"/><PolygonLabels name="cells" toName="image">'
    '<Label value="Cell"/></PolygonLabels></View>'
)
COMPONENT = Component(
    name="fake-1", architecture="residual-unet", sha256="0" * 64, path="", licence="CC0-1.0"
)
RELEASE = Release(version="fake-1-00000000", components={"cells": COMPONENT}, label_config=CONFIG)
PROJECT = ProjectKey(origin="http://label-studio.example", project_id=1, created_at=5)


class FakeFetcher:
    """Knows no network: an address that starts with "missing" cannot be fetched."""

    def fetch(self, url: str, *, task_id: int | None, access: LabelStudioAccess) -> FetchedFile:
        if url.startswith("missing"):
            raise ImageFetchError(f"{url} is gone.")
        return FetchedFile(path=Path(url), sha256=hashlib.sha256(url.encode()).hexdigest(), size=1)


def decode_square(
    file: FetchedFile, *, plane: int | None, channels: tuple[int, ...] | None
) -> Image:
    """Return a black square of 32 pixels."""
    return Image(pixels=np.zeros((32, 32, 1), np.uint8), sha256=file.sha256)


@dataclass
class FakeSegmenter:
    """Finds one square, after its gate was opened; remembers the order of images."""

    gate: threading.Event = field(default_factory=threading.Event)
    started: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    seen: list[tuple[str, Priority]] = field(default_factory=list)
    urgencies: list[Urgency] = field(default_factory=list)
    empty: bool = False

    def segment(
        self,
        image: Image,
        options: SegmentationOptions,
        *,
        component: Component,
        priority: Urgency,
    ) -> Segmentation:
        self.seen.append((image.sha256, priority_now(priority)))
        self.urgencies.append(priority)
        self.started.release()
        assert self.gate.wait(timeout=20)
        labels = np.zeros((image.height, image.width), np.int32)
        scores = np.array([], np.float32)
        if not self.empty:
            labels[8:20, 8:20] = 1
            scores = np.array([0.75], np.float32)
        return Segmentation(labels=labels, scores=scores, diameter=12.0)


@dataclass
class FakeClassifier:
    """Always gives the control's first choice."""

    def classify(
        self,
        fetch: Callable[[], FetchedFile],
        decode: Callable[[FetchedFile], Image],
        control: ChoicesControl,
        *,
        component: Component,
        priority: Urgency,
    ) -> Classification:
        decode(fetch())
        return Classification(choices=control.choices[:1], score=0.25, cluster=7)

    def classify_objects(
        self,
        cutouts: Sequence[Pixels],
        control: ChoicesControl,
        *,
        component: Component,
        priority: Urgency,
    ) -> list[Classification]:
        return [Classification(choices=control.choices[-1:], score=0.5) for _ in cutouts]


@dataclass
class Bench:
    """Everything a test of the prediction service needs."""

    service: PredictionService
    segmenter: FakeSegmenter
    kept: KeptPredictions
    deliveries: Deliveries
    open_requests: OpenRequests
    database: Database

    def request(self, images: Mapping[int, str], budget_s: float = 20.0) -> PredictionRequest:
        return PredictionRequest(
            project=PROJECT,
            release=RELEASE,
            config=parse_label_config(CONFIG),
            tasks=[Task(id=number, data={"image": url}) for number, url in images.items()],
            access=LabelStudioAccess(origin=PROJECT.origin),
            budget_s=budget_s,
        )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    database.migrate()
    segmenter = FakeSegmenter()
    kept, open_requests = KeptPredictions(database), OpenRequests(database)
    deliveries = Deliveries(database)
    predictor = TaskPredictor(
        fetcher=FakeFetcher(),
        decode=decode_square,
        segmenter=segmenter,
        classifier=FakeClassifier(),
    )
    with PredictionService(predictor, kept, deliveries, open_requests, threads=2) as service:
        yield Bench(
            service=service,
            segmenter=segmenter,
            kept=kept,
            deliveries=deliveries,
            open_requests=open_requests,
            database=database,
        )
        segmenter.gate.set()
