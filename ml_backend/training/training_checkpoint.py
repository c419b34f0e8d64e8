"""A training's state on disk: all that is needed to go on as if nothing had happened.

One safetensors file: weights under `network/`, the optimiser's averages under `optimiser/`, and
everything else (step, schedule, seeds, sums of the epoch) as JSON in its metadata. Random numbers
need no state: they all come from the seed and the step.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ml_backend.errors import CheckpointInvalid

_NETWORK: Final = "network/"
_OPTIMISER: Final = "optimiser/"
_STATE: Final = "state"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file that is whole or not there: aside, flushed, renamed.

    Raises:
        OSError: the disk is full or cannot be written; what was there before still is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    whole = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    try:
        save_file(whole, str(aside), metadata=dict(metadata))
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    except SafetensorError as error:
        aside.unlink(missing_ok=True)
        raise _os_error(error, path) from error
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _os_error(error: Exception, path: Path) -> OSError:
    # the library tells what the system said only in words: "... (os error 28)"
    said = str(error)
    _, _, behind = said.rpartition("os error ")
    number = behind.rstrip(")\"' ")
    return OSError(int(number) if number.isdigit() else 5, said, str(path))


def save_checkpoint(
    path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, state: Mapping[str, Any]
) -> None:
    """Write what is learned of `network`, `optimiser` and `state`, which JSON can hold.

    Raises:
        OSError: the disk is full or cannot be written; the checkpoint before is still there.
    """
    tensors = {f"{_NETWORK}{key}": value for key, value in learned_tensors(network).items()}
    for index, averages in optimiser.state_dict()["state"].items():
        for name, value in averages.items():
            tensors[f"{_OPTIMISER}{index}/{name}"] = value
    write_tensors(path, tensors, {_STATE: json.dumps(state)})


def load_checkpoint(
    path: Path, network: nn.Module, optimiser: torch.optim.Optimizer
) -> dict[str, Any]:
    """Put a checkpoint into `network` and `optimiser`, which are built as they were; return state.

    Raises:
        CheckpointInvalid: it is damaged or belongs to another network.
    """
    averages: dict[int, dict[str, Tensor]] = {}
    weights, others, state = _read(path, with_optimiser=True)
    for key, value in others.items():
        number, _, name = key.partition("/")
        averages.setdefault(int(number), {})[name] = value
    _put(weights, network, path)
    weights_of = [weight for group in optimiser.param_groups for weight in group["params"]]
    for index, kept in averages.items():
        averages[index] = {
            name: _laid_out(value, weights_of[index]) for name, value in kept.items()
        }
    optimiser.load_state_dict({**optimiser.state_dict(), "state": averages})
    return state


def load_weights(path: Path, network: nn.Module) -> None:
    """Put what a checkpoint says of the weights into `network`, which is built as it was.

    Raises:
        CheckpointInvalid: it is damaged, not there, or belongs to another network.
    """
    weights, _, _ = _read(path, with_optimiser=False)
    _put(weights, network, path)


def _read(
    path: Path, *, with_optimiser: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of the network, those of the optimiser, and the state."""
    weights: dict[str, Tensor] = {}
    others: dict[str, Tensor] = {}
    try:
        with safe_open(str(path), "pt") as file:
            state: dict[str, Any] = json.loads(file.metadata()[_STATE])
            for key in file.keys():  # noqa: SIM118 - it is no dictionary
                if key.startswith(_NETWORK):
                    weights[key.removeprefix(_NETWORK)] = file.get_tensor(key)
                elif with_optimiser:
                    index, name = key.removeprefix(_OPTIMISER).split("/")
                    others[f"{int(index)}/{name}"] = file.get_tensor(key)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointInvalid(f"The checkpoint {path} cannot be read: {error}.") from error
    return weights, others, state


def _put(weights: Mapping[str, Tensor], network: nn.Module, path: Path) -> None:
    expected = learned_tensors(network)
    if {key: value.shape for key, value in weights.items()} != {
        key: value.shape for key, value in expected.items()
    }:
        raise CheckpointInvalid(f"The checkpoint {path} belongs to another network.")
    with torch.no_grad():
        for key, value in expected.items():
            value.copy_(weights[key])


def _laid_out(value: Tensor, weight: Tensor) -> Tensor:
    # the fused optimiser pairs numbers by their place in memory, so layouts must be the same
    return torch.empty_like(weight).copy_(value) if value.shape == weight.shape else value


def read_checkpoint_state(path: Path) -> dict[str, Any] | None:
    """Return the state of a checkpoint without its tensors; None if there is none to go on from."""
    try:
        with safe_open(str(path), "pt") as file:
            state: dict[str, Any] = json.loads(file.metadata()[_STATE])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None
    return state


def learned_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return what training changes: weights that are learned, and statistics of normalisations."""
    tensors = {
        name: weight.detach() for name, weight in network.named_parameters() if weight.requires_grad
    }
    tensors.update(network.named_buffers())
    return tensors
