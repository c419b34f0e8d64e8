"""Which precision and memory layout are fastest on this machine, measured instead of assumed."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ml_backend.engines.networks import move_network
from ml_backend.errors import EngineError

LARGEST_DISAGREEMENT = 0.05  # root mean square, as a share of the float32 answer's
REPEATS = 3  # of which the fastest counts; others are noise of the machine
LONGEST_S = 0.6  # no more repeats of a candidate beyond it


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Number format and memory layout of a network's weights and images."""

    dtype: torch.dtype
    channels_last: bool

    @property
    def name(self) -> str:
        """Return e.g. `bfloat16, channels last`."""
        layout = ", channels last" if self.channels_last else ""
        return f"{str(self.dtype).removeprefix('torch.')}{layout}"


@dataclass(frozen=True, kw_only=True)
class DeviceProfile:
    """What was measured for one architecture on one device, and what was chosen."""

    device: str  # as torch names it, e.g. "cpu", "cuda:0"
    device_name: str  # for a person
    precision: str  # the chosen one
    tile_ms: Mapping[str, float]  # milliseconds per tile, by precision
    disagreement: Mapping[str, float]  # with float32, 0 = none, by precision

    def sentence(self) -> str:
        """Return the choice in words, for the log."""
        times = ", ".join(f"{name} {ms:.0f} ms" for name, ms in self.tile_ms.items())
        return f"{self.precision} on {self.device_name} ({times} per tile)"


def open_device(name: str) -> torch.device:
    """Return the device that the setting DEVICE names.

    Args:
        name: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises:
        EngineError: this machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise EngineError(f"DEVICE is {name!r}; use auto, cpu, cuda, cuda:N or mps.") from None
    if device.type == "cuda":
        index = device.index or 0
        if index >= torch.cuda.device_count():
            raise EngineError(
                f"DEVICE is {name!r}, but torch sees {torch.cuda.device_count()} CUDA devices; "
                "check the driver with nvidia-smi, or set DEVICE=auto."
            )
        return torch.device("cuda", index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise EngineError("DEVICE is 'mps', but this machine has none; set DEVICE=auto.")
    if device.type not in ("cpu", "mps"):
        raise EngineError(f"DEVICE is {name!r}; use auto, cpu, cuda, cuda:N or mps.")
    return device


def candidate_precisions(device: torch.device, *, convolutional: bool) -> list[Precision]:
    """Return what is worth measuring on `device`, float32 first."""
    plain = Precision(dtype=torch.float32, channels_last=False)
    halves = [torch.bfloat16] if device.type == "cpu" else [torch.bfloat16, torch.float16]
    if not convolutional:
        return [plain, *(Precision(dtype=half, channels_last=False) for half in halves)]
    return [
        plain,
        Precision(dtype=torch.float32, channels_last=True),
        *(Precision(dtype=half, channels_last=True) for half in halves),
    ]


def prepare(network: nn.Module, device: torch.device, precision: Precision) -> nn.Module:
    """Return a copy of a float32 `network` on `device` in `precision`."""
    return convert(copy.deepcopy(network), device, precision)


def convert(network: nn.Module, device: torch.device, precision: Precision) -> nn.Module:
    """Return the float32 `network` itself, on `device` in `precision`."""
    converted = move_network(network, device, precision.dtype)
    if precision.channels_last:
        converted.to(memory_format=torch.channels_last)
    return converted


def to_input(tiles: Tensor, device: torch.device, precision: Precision) -> Tensor:
    """Return `tiles: (N, C, Y, X)` as a network in `precision` on `device` wants them."""
    layout = torch.channels_last if precision.channels_last else torch.contiguous_format
    return tiles.to(device=device, dtype=precision.dtype, memory_format=layout)


def measure(
    network: nn.Module, device: torch.device, tiles: Tensor, *, convolutional: bool
) -> tuple[Precision, DeviceProfile]:
    """Return the fastest precision that agrees with float32, and what was measured.

    Args:
        network: float32, on the CPU.
        device: where it will run.
        tiles: (N, C, Y, X) float32, images as the network gets them.
        convolutional: whether the memory layout matters.
    """
    reference: Tensor | None = None
    tile_ms: dict[str, float] = {}
    disagreement: dict[str, float] = {}
    best: Precision | None = None
    for precision in candidate_precisions(device, convolutional=convolutional):
        try:
            prepared = prepare(network, device, precision)
            answer, seconds = _time(prepared, to_input(tiles, device, precision), convolutional)
        except RuntimeError:
            if reference is None:  # float32 must run; a half precision may be unknown to a device
                raise
            continue
        reference = answer if reference is None else reference
        scale = float(reference.square().mean().sqrt()) or 1.0
        error = float((answer - reference).square().mean().sqrt()) / scale
        tile_ms[precision.name] = 1000 * seconds / len(tiles)
        disagreement[precision.name] = error
        agrees = error <= LARGEST_DISAGREEMENT  # false for NaN
        if agrees and (best is None or tile_ms[precision.name] < tile_ms[best.name]):
            best = precision
    chosen = best or Precision(dtype=torch.float32, channels_last=False)
    return chosen, DeviceProfile(
        device=str(device),
        device_name=_device_name(device),
        precision=chosen.name,
        tile_ms=tile_ms,
        disagreement=disagreement,
    )


def _time(network: nn.Module, tiles: Tensor, convolutional: bool) -> tuple[Tensor, float]:
    # a transformer takes seconds per tile on a CPU: once is enough there
    slow = not convolutional and tiles.device.type == "cpu"
    best, spent = float("inf"), 0.0
    with torch.inference_mode():
        for attempt in range(1 if slow else 1 + REPEATS):
            started = time.perf_counter()
            answer = network(tiles)[0].float().cpu()  # the copy waits for the device
            seconds = time.perf_counter() - started
            if slow or attempt > 0:  # the first run sets up kernels
                best = min(best, seconds)
                spent += seconds
            if spent > LONGEST_S:
                break
    return answer, best


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type == "cpu":
        return f"CPU with {torch.get_num_threads()} threads"
    return str(device)
