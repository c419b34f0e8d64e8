"""A project of small gray images whose brightness is their class, for tests of classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ml_backend.domain import (
    Component,
    FetchedFile,
    Image,
    LabelStudioAccess,
    Pixels,
    ProjectKey,
    Task,
)
from ml_backend.engines.embedding import Embeddings
from ml_backend.engines.embedding_cache import EmbeddingCache
from ml_backend.engines.image_embeddings import ImageEmbeddings
from ml_backend.errors import ImageDecodeError, ImageFetchError
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.labelstudio.targets import ChoicesTarget, targets_of
from ml_backend.learning import Annotation, LabelledTask, LearningOptions
from ml_backend.store.annotations import AnnotationLedger
from ml_backend.store.database import Database
from ml_backend.store.splits import Splits
from ml_backend.training.choices_dataset import ChoicesDatasetBuilder
from ml_backend.training.chosen_images import ChoicesDataset
from ml_backend.training.project_images import ProjectEmbedder, ProjectImages

PROJECT = ProjectKey(origin="http://ls", project_id=3, created_at=1_800_000_000)
ACCESS = LabelStudioAccess(origin=PROJECT.origin)
CONFIG = (
    '<View><Image name="image" value="$image"/>'
    '<Choices name="kind" toName="image"><Choice value="dark, very"/><Choice value="mid/gray"/>'
    '<Choice value="bright"/></Choices>'
    '<Choices name="traits" toName="image" choice="multiple"><Choice value="striped"/>'
    '<Choice value="dotted"/></Choices></View>'
)
OBJECTS = (
    '<View><Image name="image" value="$image"/><PolygonLabels name="cells" toName="image">'
    '<Label value="Round"/><Label value="Long"/></PolygonLabels>'
    '<Choices name="health" toName="image" perRegion="true"><Choice value="alive"/>'
    '<Choice value="dead"/></Choices></View>'
)
KINDS = {"dark, very": 20, "mid/gray": 120, "bright": 220}
EMBEDDER = Component(
    name="brightness-1", architecture="descriptors", sha256="e" * 64, path="", licence="CC0-1.0"
)


class BrightnessEmbedder:
    """Four numbers about the values of an image; counts what it embeds."""

    name, sha256, dimension = EMBEDDER.name, EMBEDDER.sha256, 4

    def __init__(self) -> None:
        self.embedded = 0

    def embed(self, pixels: Sequence[Pixels]) -> Embeddings:
        """Return (N, 4) float32."""
        self.embedded += len(pixels)
        return np.array(
            [
                [one.mean(), one.std(), np.median(one), float(one.max()) - float(one.min())]
                for one in pixels
            ],
            np.float32,
        ).reshape(len(pixels), 4)


def choice_of(control: str, *choices: str) -> dict[str, Any]:
    """Return a region with choices."""
    return {
        "from_name": control,
        "to_name": "image",
        "type": "choices",
        "value": {"choices": list(choices)},
    }


def cell(number: int, label: str, left: float) -> dict[str, Any]:
    """Return the region of a cell, 20 percent wide."""
    return {
        "id": f"cell-{number}",
        "from_name": "cells",
        "to_name": "image",
        "type": "polygonlabels",
        "value": {
            "points": [[left, 10], [left + 20, 10], [left + 20, 40], [left, 40]],
            "polygonlabels": [label],
        },
    }


@dataclass
class ChoicesWorld:
    """Tasks with images, annotations and an embedder; all in one folder."""

    folder: Path
    database: Database
    config: str = CONFIG
    images: dict[str, Pixels] = field(default_factory=dict)
    embedder: BrightnessEmbedder = field(default_factory=BrightnessEmbedder)
    moment: float = 100.0  # of the last annotation

    def __post_init__(self) -> None:
        self.ledger = AnnotationLedger(self.database, clock=lambda: 1_800_000_000.0)
        self.splits = Splits(self.database)
        cache = EmbeddingCache(self.folder / "embeddings.sqlite3", 10)
        self.embeddings = ImageEmbeddings(self.embedder, cache)

    @property
    def target(self) -> ChoicesTarget:
        """Return what is learned."""
        targets = targets_of(parse_label_config(self.config))
        (target,) = [target for target in targets if isinstance(target, ChoicesTarget)]
        return target

    def fetch(self, url: str, *, task_id: int | None, access: LabelStudioAccess) -> FetchedFile:
        """Return a file that stands for the address."""
        if url not in self.images:
            raise ImageFetchError(f"{url} answered 404; check the address.")
        return FetchedFile(path=self.folder, sha256=f"sha of {url}", size=1)

    def decode(
        self, file: FetchedFile, *, plane: int | None, channels: tuple[int, ...] | None
    ) -> Image:
        """Return the pixels of that address; one without pixels is unreadable."""
        pixels = self.images[file.sha256.removeprefix("sha of ")]
        if not pixels.size:
            raise ImageDecodeError("It is no image.")
        return Image(pixels=pixels, sha256=file.sha256)

    def add_image(self, task_id: int, kind: str, *, seed: int | None = None) -> Task:
        """Return a task with an image of that kind."""
        noise = np.random.default_rng(task_id if seed is None else seed)
        values = noise.normal(KINDS[kind], 12, (12, 12, 1)).clip(0, 255)
        self.images[f"{task_id}.png"] = values.astype(np.uint8)
        return Task(id=task_id, data={"image": f"{task_id}.png"})

    def choose(
        self, task_id: int, *regions: Mapping[str, Any], url: str | None = None, **facts: Any
    ) -> None:
        """Keep an annotation of a task."""
        self.moment += 1
        given = {"annotation_id": task_id * 10, "updated_at": self.moment, **facts}
        self.ledger.record(
            PROJECT,
            Annotation(task_id=task_id, result=list(regions), **given),
            LabelledTask(task_id=task_id, data={"image": url or f"{task_id}.png"}),
        )

    def label(self, count: int, *, first: int = 1) -> list[Task]:
        """Return so many tasks, labelled with their kinds in turns."""
        tasks = []
        kinds = list(KINDS)
        for task_id in range(first, first + count):
            kind = kinds[task_id % len(kinds)]
            tasks.append(self.add_image(task_id, kind))
            self.choose(task_id, choice_of("kind", kind))
        return tasks

    def project_embedder(self) -> ProjectEmbedder:
        """Return what embeds the project's images."""
        return ProjectEmbedder(
            fetcher=self,
            decode=self.decode,
            embeddings=self.embeddings,
            target=self.target,
            access=ACCESS,
        )

    def dataset(self, options: LearningOptions | None = None) -> ChoicesDataset:
        """Return the labelled images as of now."""
        builder = ChoicesDatasetBuilder(
            fetcher=self,
            decode=self.decode,
            embed=self.project_embedder(),
            ledger=self.ledger,
            splits=self.splits,
        )
        return builder.build(PROJECT, self.target, options or LearningOptions(), ACCESS)

    def project_images(self) -> ProjectImages:
        """Return all images, labelled or not."""
        tasks = [Task(id=int(url.removesuffix(".png")), data={"image": url}) for url in self.images]
        return self.project_embedder().embed(tasks)
