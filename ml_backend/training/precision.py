"""In which number format a network is trained on this machine."""

from __future__ import annotations

import time
from typing import Final

import torch

PROBE: Final = 768  # rows and columns of the matrices that are multiplied
REPEATS: Final = 4
WORTH_IT: Final = 1.3  # times as fast; below, more digits are the better choice

FORMATS: Final = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def training_precision(device: torch.device) -> str:
    """Return the format to compute in, a key of FORMATS; weights are float32 whatever it is.

    A processor without instructions for bfloat16 computes it many times slower than float32, one
    with them several times faster, and which it is shows in a few milliseconds.
    """
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    if device.type != "cpu":
        return "float32"
    plain, half = _multiply_s(torch.float32), _multiply_s(torch.bfloat16)
    return "bfloat16" if half * WORTH_IT < plain else "float32"


def _multiply_s(dtype: torch.dtype) -> float:
    one = torch.ones(PROBE, PROBE, dtype=dtype)
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        one @ one
        best = min(best, time.perf_counter() - started)
    return best
