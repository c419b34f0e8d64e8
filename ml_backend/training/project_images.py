"""All images of a project as embeddings: what clusters are made of, labelled or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from ml_backend.domain import FetchedFile, Fetcher, Image, LabelStudioAccess, Pixels, Task
from ml_backend.engines.image_embeddings import (
    AT_ONCE,
    Embeddable,
    ImageEmbeddings,
    content_of,
)
from ml_backend.errors import BackendError, BadRequest, ImageError
from ml_backend.labelstudio.targets import ChoicesTarget
from ml_backend.labelstudio.values import read_value
from ml_backend.training.chosen_images import Item
from ml_backend.training.dataset import Decoder
from ml_backend.training.dataset_report import shortened

_CUTOUTS_KEPT = 3000  # for pictures

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ProjectImages:
    """Images of a project that could be embedded, labelled or not; or single objects of them."""

    items: tuple[Item, ...]
    embeddings: FloatArray = field(repr=False)  # (N, D)
    left_out: tuple[str, ...] = ()  # a sentence each


class ProjectEmbedder:
    """Fetches and embeds the images of a project's tasks; what was embedded before is at hand."""

    def __init__(
        self,
        *,
        fetcher: Fetcher,
        decode: Decoder,
        embeddings: ImageEmbeddings,
        target: ChoicesTarget,
        access: LabelStudioAccess,
        on_task: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        """Keep the collaborators; `on_task` is told (tasks done, tasks), and may raise to stop."""
        self._fetcher = fetcher
        self._decode = decode
        self._embeddings = embeddings
        self._target = target
        self._access = access
        self._on_task = on_task
        self._files: dict[int, FetchedFile] = {}
        self._cutouts: dict[Item, Pixels] = {}

    def one(self, sha256: str, decode: Callable[[], Image]) -> FloatArray:
        """Return the embedding (D,) of an image, by the hash of its file.

        Raises:
            ImageError, ModelError, OutOfMemory, EngineError
        """
        return self._embeddings.one(Embeddable(content=self._content(sha256), decode=decode))

    def embed(self, tasks: Sequence[Task]) -> ProjectImages:
        """Return the embeddings of all tasks whose images can be had; the others are named.

        Raises:
            ModelError, OutOfMemory, EngineError: the embedder cannot be run.
        """
        found: dict[int, FloatArray] = {}
        left_out: list[str] = []
        for start in range(0, len(tasks), AT_ONCE):
            fetched: dict[int, Embeddable] = {}
            for done, task in enumerate(tasks[start : start + AT_ONCE], start=start):
                self._on_task(done, len(tasks))
                try:
                    fetched[task.id] = self._fetch(task)
                except (BadRequest, ImageError) as error:
                    left_out.append(_not_embedded(task.id, error))
            embedded = self._embeddings.many(list(fetched.values()))
            for task_id, embedding in zip(fetched, embedded, strict=True):
                if isinstance(embedding, BackendError):
                    left_out.append(_not_embedded(task_id, embedding))
                else:
                    found[task_id] = embedding
        self._on_task(len(tasks), len(tasks))
        return ProjectImages(
            items=tuple((task_id, 0) for task_id in found),
            embeddings=self.stacked(list(found.values())),
            left_out=tuple(shortened(left_out)),
        )

    def objects(self, task_id: int, cutouts: Mapping[int, Pixels]) -> FloatArray:
        """Return the embeddings (N, D) of objects by their numbers, cut out of a task's image.

        Raises:
            ImageError, ModelError, OutOfMemory, EngineError
        """
        for number, cutout in cutouts.items():
            if len(self._cutouts) < _CUTOUTS_KEPT:
                self._cutouts[task_id, number] = cutout
        return self._embeddings.pixels(list(cutouts.values()))

    def stacked(self, embeddings: Sequence[FloatArray]) -> FloatArray:
        """Return embeddings (D,) as (N, D), also when there are none."""
        if embeddings:
            return np.stack(embeddings)
        return np.empty((0, self._embeddings.embedder.dimension), np.float32)

    def image(self, item: Item) -> Pixels | None:
        """Return the pixels of what was embedded, None where they are not at hand any more."""
        task_id, number = item
        if number:
            return self._cutouts.get(item)
        file = self._files.get(task_id)
        if file is None or not file.path.is_file():
            return None
        try:
            return self._decoder(file)().pixels
        except ImageError:
            return None

    def _fetch(self, task: Task) -> Embeddable:
        address = read_value(task.data, self._target.value_key)
        file = self._fetcher.fetch(address, task_id=task.id, access=self._access)
        self._files[task.id] = file
        return Embeddable(content=self._content(file.sha256), decode=self._decoder(file))

    def _decoder(self, file: FetchedFile) -> Callable[[], Image]:
        target = self._target
        return partial(self._decode, file, plane=target.plane, channels=target.channels)

    def _content(self, sha256: str) -> str:
        return content_of(sha256, plane=self._target.plane, channels=self._target.channels)


def _not_embedded(task_id: int, error: BackendError) -> str:
    return f"Task {task_id} is in no cluster: {error.message}"
