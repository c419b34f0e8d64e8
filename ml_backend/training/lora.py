"""Training adapters instead of a transformer's own weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from ml_backend.engines.lora import adapter_key
from ml_backend.errors import TrainingError

LAYERS: Final = ("qkv", "proj")  # of each attention


class AdaptedLinear(nn.Module):
    """A linear layer that stays as it is, plus an adapter that is learned; zero at the start."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        weight = base.weight
        down = torch.empty(rank, base.in_features, device=weight.device)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank, device=weight.device))

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., inputs) -> (..., outputs)."""
        changed = nn.functional.linear(nn.functional.linear(x, self.down), self.up)
        out: Tensor = self.base(x) + changed
        return out


def add_adapters(network: nn.Module, rank: int) -> dict[str, AdaptedLinear]:
    """Put an adapter on every attention of `network`, freeze all else; return them by layer.

    Raises:
        TrainingError: the network has no attention.
    """
    network.requires_grad_(False)
    found = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and name.split(".")[-2:] in [["attn", la] for la in LAYERS]
    }
    if not found:
        raise TrainingError(
            "This network has no attention to put adapters on; leave model_lora_rank away."
        )
    adapted = {}
    for name, linear in found.items():
        parent, _, last = name.rpartition(".")
        adapted[name] = AdaptedLinear(linear, rank)
        setattr(network.get_submodule(parent), last, adapted[name])
    return adapted


def adapter_tensors(adapted: Mapping[str, AdaptedLinear], architecture: str) -> dict[str, Tensor]:
    """Return the learned matrices by the keys under which `engines.lora` finds them."""
    tensors = {}
    for layer, module in adapted.items():
        tensors[adapter_key(architecture, layer, "down")] = module.down.detach()
        tensors[adapter_key(architecture, layer, "up")] = module.up.detach()
    return tensors


def merged_state(network: nn.Module, adapted: Mapping[str, AdaptedLinear]) -> dict[str, Tensor]:
    """Return the tensors of a network with its adapters added to the layers that they are on."""
    state = dict(network.state_dict())
    for layer, module in adapted.items():
        for part in ("down", "up"):
            del state[f"{layer}.{part}"]
        for name in ("weight", "bias"):
            value = state.pop(f"{layer}.base.{name}", None)
            if value is not None:
                state[f"{layer}.{name}"] = value
        state[f"{layer}.weight"] = (module.base.weight + module.up @ module.down).detach()
    return state
