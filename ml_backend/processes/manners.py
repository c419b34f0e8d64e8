"""How a training process takes second place to the engine on the same machine."""

from __future__ import annotations

import contextlib
import os

import cv2
import structlog
import torch

NICENESS = 10  # about a tenth of the processor's time where the engine wants it all

log = structlog.get_logger(__name__)


def take_second_place(device: torch.device, *, threads: int, gpu_share: float) -> int:
    """Bound what this process takes of the machine; return the number of CPU threads.

    Args:
        device: that it trains on.
        threads: of the CPU; 0 = chosen by the machine.
        gpu_share: part of a GPU's memory, 0..1.
    """
    count = threads or own_threads(processors())
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(gpu_share, device)
    if device.type == "cpu":
        with contextlib.suppress(OSError, AttributeError):  # Windows has no such thing
            os.nice(NICENESS)
    log.info("training process takes second place", device=str(device), threads=count)
    return count


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # macOS and Windows have no such thing
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def own_threads(available: int) -> int:
    """Return how many threads a training takes of so many processors.

    A small machine gives all: the lower priority keeps the engine going. A large one keeps one
    back, because threads that wait for each other at a barrier lose more than a processor.
    """
    return available if available <= 2 else available - 1
