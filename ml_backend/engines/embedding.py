"""Images to vectors: what every embedder can do, and how one is opened. Needs no torch itself.

A network of timm lives in `engines.timm_embedder`, the built-in descriptors in
`engines.descriptors`; `engines.embedder_catalogue` finds them by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from ml_backend.domain import Component, Pixels
from ml_backend.engines import descriptors
from ml_backend.engines.embedder_catalogue import DESCRIPTORS, TIMM
from ml_backend.errors import CheckpointInvalid, ModelError

if TYPE_CHECKING:
    import torch

Embeddings = npt.NDArray[np.float32]
"""(N, D) float32, finite: one row per image, in the order of the images."""

_PROBE_EDGE = 16  # pixels of the image that tells how long a description is


class Embedder(Protocol):
    """Turns images into vectors that lie close together where the images look alike.

    Safe to call from many threads.
    """

    @property
    def name(self) -> str:
        """Return what a person calls it, e.g. `shapes-1` or `resnet50.a1_in1k`."""
        ...

    @property
    def sha256(self) -> str:
        """Return the hash of everything that decides a vector: weights, preprocessing, code.

        Vectors of equal hashes may be compared and kept in one cache.
        """
        ...

    @property
    def dimension(self) -> int:
        """Return the length D of a vector."""
        ...

    def embed(self, pixels: Sequence[Pixels]) -> Embeddings:
        """Return (N, D) float32 for N images, each (Y, X, C) of any size and data type.

        Raises:
            ImageError: an image has no pixels.
            CheckpointInvalid: the network answers with numbers that are not finite.
            OutOfMemory: not even one image fits.
        """
        ...


class DescriptorEmbedder:
    """The built-in descriptors, which need neither a download nor a device."""

    def __init__(self, *, workers: int = 1) -> None:
        """Make an embedder.

        Args:
            workers: threads that describe images at once; 1 = the caller's own.
        """
        self._workers = max(1, workers)
        self._sha256 = descriptors.embedder_sha256()
        probe = np.zeros((_PROBE_EDGE, _PROBE_EDGE, 1), np.uint8)
        self._dimension = len(descriptors.describe(probe))

    @property
    def name(self) -> str:
        """Return the name of this set of descriptors."""
        return descriptors.NAME

    @property
    def sha256(self) -> str:
        """Return the hash of the descriptors' name, revision and dimension."""
        return self._sha256

    @property
    def dimension(self) -> int:
        """Return the length of a description."""
        return self._dimension

    def embed(self, pixels: Sequence[Pixels]) -> Embeddings:
        """Return (N, D) float32 for N images, each (Y, X, C)."""
        if not pixels:
            return np.empty((0, self._dimension), np.float32)
        if self._workers == 1 or len(pixels) == 1:
            rows = [descriptors.describe(image) for image in pixels]
        else:
            with ThreadPoolExecutor(min(self._workers, len(pixels))) as pool:
                rows = list(pool.map(descriptors.describe, pixels))
        return np.stack(rows).astype(np.float32, copy=False)


def open_embedder(component: Component, device: torch.device, *, workers: int = 1) -> Embedder:
    """Return the embedder of `component`, its weights verified.

    Args:
        component: as `engines.embedder_catalogue` resolves it.
        device: where a network will run; the descriptors need none.
        workers: threads that describe or prepare images at once.

    Raises:
        CheckpointInvalid: the weights changed, are damaged or belong to another architecture.
        ModelNotFound: the weights are gone.
        ModelError: the architecture is unknown.
    """
    if component.architecture == DESCRIPTORS:
        embedder = DescriptorEmbedder(workers=workers)
        if embedder.sha256 != component.sha256:
            raise CheckpointInvalid(
                f"This version's descriptors {embedder.name!r} are not those that "
                f"{component.name!r} was registered with; embed and train again."
            )
        return embedder
    if component.architecture == TIMM:
        from ml_backend.engines.timm_embedder import TimmEmbedder  # timm takes seconds to import

        return TimmEmbedder.open(component, device, workers=workers)
    raise ModelError(
        f"{component.name!r} has the architecture {component.architecture!r}, which is no "
        f"embedder; it must be {TIMM} or {DESCRIPTORS}."
    )
