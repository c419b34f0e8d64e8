"""Running out of memory: how to tell, and what to give back."""

from __future__ import annotations

import torch

_MEMORY_WORDS = ("out of memory", "not enough memory", "can't allocate memory", "alloc_cpu")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that memory ran out, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in _MEMORY_WORDS)


def free_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
