"""What is read of an engine's parts when somebody asks for its metrics."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ml_backend.engines.cellpose import CellposeSegmenter
from ml_backend.engines.device_memory import memory_bytes
from ml_backend.engines.embedding_cache import EmbeddingCache
from ml_backend.imaging.fetch import HttpFetcher
from ml_backend.processes.engine_metrics import Reading
from ml_backend.service.predictions import PredictionService


def engine_readings(
    device: torch.device,
    *,
    depth: Callable[[], int],
    service: PredictionService,
    segmenter: CellposeSegmenter,
    fetcher: HttpFetcher,
    embeddings: EmbeddingCache,
    slots: int,
) -> list[Reading]:
    """Return the readings of an engine on `device`.

    Args:
        device: That networks run on.
        depth: How many images wait or are in work.
        service: What answers Label Studio.
        segmenter: On the device.
        fetcher: The way to images.
        embeddings: Those that are kept.
        slots: How many images it works on at once.
    """

    def asked() -> dict[tuple[str, ...], float]:
        counts = {
            "predictions": service.asked(),
            "flows": segmenter.kept_asked,
            "images": fetcher.kept_asked,
            "embeddings": embeddings.asked,
        }
        return {
            (cache, outcome): count
            for cache, both in counts.items()
            for outcome, count in zip(("hit", "miss"), both, strict=True)
        }

    def kept_bytes() -> dict[tuple[str, ...], float]:
        return {("flows",): segmenter.kept_bytes, ("images",): fetcher.kept_bytes}

    def memory() -> dict[tuple[str, ...], float]:
        return {(kind,): size for kind, size in memory_bytes(device).items()}

    return [
        Reading(
            name="ml_backend_engine_depth",
            text="Images that wait or are in work.",
            read=lambda: {(): depth()},
        ),
        Reading(
            name="ml_backend_engine_slots",
            text="Images that are worked on at once.",
            read=lambda: {(): slots},
        ),
        Reading(
            name="ml_backend_engine_device_requests",
            text="Images and functions whose turn on the device has not come.",
            read=lambda: {(): segmenter.waiting()},
        ),
        Reading(
            name="ml_backend_engine_networks",
            text="Networks in the device's memory.",
            read=lambda: {(): len(segmenter.networks())},
        ),
        Reading(
            name="ml_backend_engine_gpu_memory_bytes",
            text=(
                "Of the GPU, whoever uses it: total and free; of this process: reserved, and "
                "allocated of that."
            ),
            labels=("kind",),
            read=memory,
        ),
        Reading(
            name="ml_backend_engine_cache_bytes",
            text="Size of a cache; images lie on disk, flows in memory.",
            labels=("cache",),
            read=kept_bytes,
        ),
        Reading(
            name="ml_backend_engine_cache_requests",
            text="What a cache was asked for, by whether it was there.",
            labels=("cache", "outcome"),
            read=asked,
            is_counter=True,
        ),
    ]
