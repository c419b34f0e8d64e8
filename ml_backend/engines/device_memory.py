"""Running out of memory: how to tell, and what to give back."""

from __future__ import annotations

import ctypes
from functools import cache

import torch

_MEMORY_WORDS = ("out of memory", "not enough memory", "can't allocate memory", "alloc_cpu")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that memory ran out, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in _MEMORY_WORDS)


def return_memory() -> None:
    """Give main memory that nothing uses any more back to the system.

    glibc keeps what was freed in holes of its arenas: a network of 30 MB leaves some behind.
    """
    trim = getattr(_c_library(), "malloc_trim", None)
    if trim is not None:
        trim(0)


@cache
def _c_library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(None)
    except (OSError, TypeError):  # not on every system
        return None


def memory_bytes(device: torch.device) -> dict[str, int]:
    """Return the bytes of a GPU's memory by kind, {} for a device without memory of its own.

    total and free are the device's, whoever uses it; reserved is what this process holds of it, and
    allocated what of that is in use.
    """
    if device.type != "cuda":
        return {}
    free, total = torch.cuda.mem_get_info(device)
    return {
        "total": total,
        "free": free,
        "reserved": torch.cuda.memory_reserved(device),
        "allocated": torch.cuda.memory_allocated(device),
    }


def free_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
