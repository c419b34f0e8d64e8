"""Weights from disk into a network: every key, every shape, every number checked."""

from __future__ import annotations

import pickle  # for the name of the error that torch.load raises; nothing is unpickled
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ml_backend.engines.checkpoint_keys import is_safetensors
from ml_backend.errors import CheckpointInvalid

NAMED_KEYS = 5  # of the wrong ones, in a message
PARALLEL_PREFIX = "module."  # what torch's DataParallel puts in front of every key


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors or torch file by key, on the CPU.

    Raises:
        CheckpointInvalid: the file cannot be read without running code from it.
    """
    if not is_safetensors(path):
        return read_torch_checkpoint(path)
    try:
        state: dict[str, Tensor] = load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointInvalid(f"{path} is no readable safetensors file: {error}.") from error
    return state


def read_torch_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file written by `torch.save`, memory-mapped where possible.

    Raises:
        CheckpointInvalid: it is damaged, or holds more than tensors.
    """
    try:
        # weights_only builds tensors and nothing else; foreign checkpoints come in this format
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointInvalid(
            f"{path} is damaged or holds more than weights ({first}); it is not loaded."
        ) from error
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise CheckpointInvalid(f"{path} holds no state dictionary; save `net.state_dict()`.")
    return {key.removeprefix(PARALLEL_PREFIX): value for key, value in state.items()}


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Put `state` into `network`, which may be on torch's meta device, as float32.

    Args:
        network: gets the tensors themselves, not copies.
        state: exactly the network's keys and shapes, finite numbers.
        source: names the file in messages.

    Raises:
        CheckpointInvalid: with the keys that are missing, unexpected, misshaped or not finite.
    """
    expected = network.state_dict()
    _complain(source, "lacks", [key for key in expected if key not in state])
    _complain(source, "has unexpected", [key for key in state if key not in expected])
    misshapen = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if state[key].shape != value.shape
    ]
    _complain(source, "has wrong shapes at", misshapen)
    infinite = [
        key
        for key, value in state.items()
        if value.is_floating_point() and not bool(torch.isfinite(value).all())
    ]
    _complain(source, "has numbers that are not finite at", infinite)
    converted = {
        key: value.float() if value.is_floating_point() else value for key, value in state.items()
    }
    network.load_state_dict(converted, strict=True, assign=True)


def _complain(source: str, what: str, keys: list[str]) -> None:
    if not keys:
        return
    more = f" and {len(keys) - NAMED_KEYS} more" if len(keys) > NAMED_KEYS else ""
    raise CheckpointInvalid(
        f"{source} {what} {', '.join(sorted(keys)[:NAMED_KEYS])}{more}; it is damaged or belongs "
        "to another architecture."
    )
