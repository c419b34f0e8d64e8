"""The embeddings of images: computed once, kept on disk, shared by whoever needs them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ml_backend.domain import Image, Pixels
from ml_backend.engines.embedding import Embedder, Embeddings
from ml_backend.engines.embedding_cache import EmbeddingCache
from ml_backend.errors import BackendError

Result = TypeVar("Result")
Embedding = npt.NDArray[np.float32]
"""(D,) float32."""

AT_ONCE = 32  # images in memory while many are embedded


class OnDevice(Protocol):
    """Runs work where the embedder's network lives."""

    def __call__(self, work: Callable[[], Result]) -> Result:
        """Return what `work` returns."""
        ...


def here(work: Callable[[], Result]) -> Result:
    """Run work in the caller's thread, for an embedder that needs no device."""
    return work()


@dataclass(frozen=True, kw_only=True)
class Embeddable:
    """An image that can be decoded when its embedding is not at hand."""

    content: str  # `content_of`
    decode: Callable[[], Image]  # raises ImageError


def content_of(sha256: str, *, plane: int | None, channels: tuple[int, ...] | None) -> str:
    """Return the key of an image's pixels: of its file, and of what is taken from it."""
    if plane is None and channels is None:
        return sha256
    shown = "-" if channels is None else ".".join(map(str, channels))
    return f"{sha256}/{'-' if plane is None else plane}/{shown}"


def content_of_pixels(pixels: Pixels) -> str:
    """Return the key of pixels that no file has, (Y, X, C)."""
    whole = np.ascontiguousarray(pixels)
    digest = hashlib.sha256(f"{whole.dtype.str}{whole.shape}".encode())
    digest.update(whole.data)
    return f"pixels/{digest.hexdigest()}"


class ImageEmbeddings:
    """One embedder with what it has embedded before; safe for many threads."""

    def __init__(
        self, embedder: Embedder, cache: EmbeddingCache, *, on_device: OnDevice = here
    ) -> None:
        """Keep the collaborators; `on_device` runs the embedder."""
        self.embedder = embedder
        self._cache = cache
        self._on_device = on_device

    def one(self, image: Embeddable) -> Embedding:
        """Return the embedding of an image, (D,); it is decoded only if that is not at hand.

        Raises:
            ImageError, ModelError, OutOfMemory, EngineError
        """
        (found,) = self.many([image])
        if isinstance(found, BackendError):
            raise found
        return found

    def pixels(self, images: Sequence[Pixels]) -> Embeddings:
        """Return the embeddings (N, D) of images that lie in memory; kept by their pixels' hash.

        Raises:
            ImageError, ModelError, OutOfMemory, EngineError
        """
        vectors = np.empty((len(images), self.embedder.dimension), np.float32)
        wanted = [
            Embeddable(content=content_of_pixels(one), decode=partial(Image, pixels=one, sha256=""))
            for one in images
        ]
        for row, found in enumerate(self.many(wanted)):
            if isinstance(found, BackendError):
                raise found
            vectors[row] = found
        return vectors

    def many(
        self,
        images: Sequence[Embeddable],
        *,
        on_progress: Callable[[int], None] = lambda _done: None,
    ) -> list[Embedding | BackendError]:
        """Return each image's embedding, or why it has none.

        What was embedded is kept at once: broken off, the next call goes on where this one was.

        Args:
            images: any number; at most `AT_ONCE` are in memory.
            on_progress: is told how many images are done; it may raise to stop.

        Raises:
            ModelError, OutOfMemory, EngineError: the embedder cannot be run.
        """
        found: list[Embedding | BackendError] = []
        for start in range(0, len(images), AT_ONCE):
            found += self._part(images[start : start + AT_ONCE])
            on_progress(len(found))
        return found

    def _part(self, images: Sequence[Embeddable]) -> list[Embedding | BackendError]:
        sha256 = self.embedder.sha256
        known = self._cache.get_many([image.content for image in images], sha256)
        problems: dict[str, BackendError] = {}
        decoded: dict[str, Image] = {}
        for image in images:
            if image.content in known or image.content in decoded or image.content in problems:
                continue
            try:
                decoded[image.content] = image.decode()
            except BackendError as error:
                problems[image.content] = error
        if decoded:
            pixels = [image.pixels for image in decoded.values()]
            made = self._on_device(lambda: self._embed(pixels))
            new = dict(zip(decoded, made, strict=True))
            self._cache.put_many(new, sha256)
            known = {**known, **new}
        return [
            problems[image.content] if image.content in problems else known[image.content]
            for image in images
        ]

    def _embed(self, pixels: Sequence[npt.NDArray[np.generic]]) -> Embeddings:
        return self.embedder.embed(pixels)
