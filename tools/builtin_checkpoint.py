"""Checkpoints of a training run and the weights made from it, both as safetensors."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ml_backend.engines.residual_unet import ResidualUNet


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Aside first: an interruption never leaves half a file under the final name."""
    aside = path.with_suffix(".part")
    whole = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    save_file(whole, str(aside), metadata=metadata)
    os.replace(aside, path)


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: v for key, v in tensors.items() if key.startswith(prefix)}


def save_checkpoint(
    path: Path,
    nets: dict[str, nn.Module],
    optimisers: list[torch.optim.Optimizer],
    *,
    step: int,
    elapsed_s: float,
) -> None:
    """Everything that a run needs to continue."""
    tensors: dict[str, Tensor] = {}
    for name, net in nets.items():
        tensors.update({f"{name}/{key}": value for key, value in net.state_dict().items()})
    for i, optimiser in enumerate(optimisers):
        for index, values in optimiser.state_dict()["state"].items():
            tensors.update({f"optimiser{i}/{index}/{key}": v for key, v in values.items()})
    _write(path, tensors, {"step": str(step), "elapsed_s": str(elapsed_s)})


def load_checkpoint(
    path: Path, nets: dict[str, nn.Module], optimisers: list[torch.optim.Optimizer]
) -> tuple[int, float]:
    """Continue from `path`: restores networks and optimisers, returns step and elapsed seconds."""
    tensors = load_file(str(path))
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata()
    for name, net in nets.items():
        net.load_state_dict(_below(tensors, f"{name}/"))
    for i, optimiser in enumerate(optimisers):
        state: dict[int, dict[str, Any]] = {}
        for key, value in _below(tensors, f"optimiser{i}/").items():
            index, field = key.split("/")
            state.setdefault(int(index), {})[field] = value
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    return int(metadata["step"]), float(metadata["elapsed_s"])


def save_weights(path: Path, net: ResidualUNet) -> None:
    """The weights under their state-dict names; floats are stored as float16."""
    tensors = {
        name: value.half() if value.is_floating_point() else value
        for name, value in net.state_dict().items()
    }
    _write(path, tensors, {"config": json.dumps(net.config.to_json())})
