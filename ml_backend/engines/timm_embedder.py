"""Networks of timm as embedders: pooled features, with the size of the image kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from ml_backend.domain import Component, Pixels
from ml_backend.engines.catalogue import file_sha256
from ml_backend.engines.device_memory import free_memory, is_out_of_memory
from ml_backend.engines.timm_network import build_network, load_weights
from ml_backend.engines.timm_preprocessing import (
    REFERENCE_EDGE,
    SIZE_FEATURES,
    SIZE_WEIGHT,
    FloatArray,
    Preprocessing,
    size_features,
)
from ml_backend.errors import CheckpointInvalid, OutOfMemory

REVISION: Final = "1"
"""Part of the embedder's hash: raised when the same weights would answer something else."""

_BATCH: Final[Mapping[str, int]] = {"cuda": 128, "mps": 32}
_BATCH_ELSEWHERE: Final = 16


class TimmEmbedder:
    """A network of timm that turns images into features; safe to call from many threads.

    A row of its answer is the network's pooled features scaled to length 1, then SIZE_FEATURES
    numbers that say how large the image was. On CUDA it computes in bfloat16, whose two to three
    digits are enough to tell images apart; elsewhere in float32.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        device: torch.device,
        *,
        name: str,
        sha256: str,
        workers: int = 1,
    ) -> None:
        """Put a network to work; `open` finds and verifies one.

        Args:
            network: float32, (N, C, height, width) -> (N, F).
            preprocessing: how its input is made.
            device: where it will run.
            name: for a person.
            sha256: of everything that decides the answer.
            workers: threads that prepare images at once; 1 = the caller's own.

        Raises:
            CheckpointInvalid: it gives no pooled, finite features.
            OutOfMemory: it does not fit on the device.
        """
        self._preprocessing = preprocessing
        self._device = device
        self._name = name
        self._sha256 = sha256
        self._workers = max(1, workers)
        self._batch = _BATCH.get(device.type, _BATCH_ELSEWHERE)
        try:
            self._network = network.requires_grad_(False).eval().to(device)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(
                f"{name!r} does not fit on {device}; choose a smaller one."
            ) from error
        shape = (1, preprocessing.channels, preprocessing.height, preprocessing.width)
        self._features = self._embed_batch(torch.zeros(shape)).shape[1]

    @classmethod
    def open(cls, component: Component, device: torch.device, *, workers: int = 1) -> TimmEmbedder:
        """Return the embedder of a component that `embedder_catalogue` has resolved.

        Raises:
            CheckpointInvalid: the weights changed, are damaged or belong to another architecture.
            ModelNotFound: they are gone.
            ModelError: timm cannot build the network, or it takes odd images.
        """
        path = Path(component.path)
        if file_sha256(path) != component.sha256:
            raise CheckpointInvalid(
                f"The weights of {component.name!r} changed on disk since they were registered; "
                "register the embedder again."
            )
        network, preprocessing = build_network(component)
        load_weights(network, path)
        return cls(
            network,
            preprocessing,
            device,
            name=component.name,
            sha256=_embedder_sha256(component, network, preprocessing),
            workers=workers,
        )

    @property
    def name(self) -> str:
        """Return the component's name."""
        return self._name

    @property
    def sha256(self) -> str:
        """Return the hash of weights, architecture, preprocessing and this code's revision."""
        return self._sha256

    @property
    def dimension(self) -> int:
        """Return the length of a row: the network's features and those of size."""
        return self._features + SIZE_FEATURES

    def embed(self, pixels: Sequence[Pixels]) -> FloatArray:
        """Return (N, D) float32 for N images, each (Y, X, C) of any size and data type.

        Raises:
            ImageError: an image has no pixels.
            CheckpointInvalid: the network answers with numbers that are not finite.
            OutOfMemory: not even one image fits on the device.
        """
        rows = np.empty((len(pixels), self.dimension), np.float32)
        with self._mapping() as mapped:
            for start in range(0, len(pixels), self._batch):
                some = pixels[start : start + self._batch]
                images = np.stack(list(mapped(self._preprocessing.apply, some)))
                features = self._embed_batch(torch.from_numpy(images))
                rows[start : start + len(some), : self._features] = features
        for row, image in zip(rows, pixels, strict=True):
            row[self._features :] = size_features(image.shape[0], image.shape[1])
        return rows

    @contextlib.contextmanager
    def _mapping(self) -> Iterator[Callable[..., Any]]:
        if self._workers == 1:
            yield map
            return
        with ThreadPoolExecutor(self._workers) as pool:
            yield pool.map

    def _embed_batch(self, images: Tensor) -> FloatArray:
        """Return (N, F) float32 of length 1 for `images: (N, C, height, width)` on the CPU."""
        features = self._run(images)
        if features.ndim != 2:
            raise CheckpointInvalid(
                f"{self._name!r} gives no pooled features but the shape {tuple(features.shape)}; "
                "it cannot be used as an embedder."
            )
        if not bool(torch.isfinite(features).all()):
            raise CheckpointInvalid(
                f"{self._name!r} answers with numbers that are not finite; its weights are damaged."
            )
        return np.asarray(nn.functional.normalize(features, dim=1).numpy(), np.float32)

    def _run(self, images: Tensor) -> Tensor:
        try:
            with torch.inference_mode(), self._autocast():
                answer: Tensor = self._network(images.to(self._device))
                return answer.float().cpu()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # outside the handler, whose traceback holds the batch that did not fit
        free_memory(self._device)
        if len(images) == 1:
            raise OutOfMemory(
                f"Not even one image fits beside {self._name!r} in the memory of {self._device}; "
                "choose a smaller embedder or another DEVICE."
            )
        half = len(images) // 2
        return torch.cat([self._run(images[:half]), self._run(images[half:])])

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self._device.type != "cuda":
            return contextlib.nullcontext()
        # float16 would overflow in some networks; cards before 2020 compute bfloat16 slowly
        enabled = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.autocast("cuda", dtype=torch.bfloat16, enabled=enabled)


def _embedder_sha256(component: Component, network: nn.Module, preprocessing: Preprocessing) -> str:
    architecture = getattr(network, "pretrained_cfg", {}).get("architecture", "")
    decisive = {
        "revision": REVISION,
        "weights": component.sha256,
        "architecture": architecture,
        "pooling": str(getattr(network, "global_pool", "")),
        "preprocessing": asdict(preprocessing),
        "size": [SIZE_FEATURES, REFERENCE_EDGE, SIZE_WEIGHT],
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
