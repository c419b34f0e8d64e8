"""What is learned of a network, and how it is stored so that `engines` can load it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from ml_backend.domain import Component
from ml_backend.engines.attention import speed_up_attention
from ml_backend.engines.lora import BASE_NAME, BASE_PATH, BASE_SHA256
from ml_backend.engines.residual_unet import ResidualUNet
from ml_backend.training.lora import AdaptedLinear, adapter_tensors, add_adapters, merged_state
from ml_backend.training.training_checkpoint import write_tensors

CONSTANTS: Final = (
    "W2",
    "diam_mean",
    "diam_labels",
)  # of Cellpose: parameters, but no weights


@dataclass(frozen=True, kw_only=True)
class LearnedWeights:
    """A network prepared for training: what is learned asks for gradients, the rest does not."""

    network: nn.Module = field(repr=False)
    component: Component  # what it was before
    adapted: Mapping[str, AdaptedLinear] = field(repr=False)  # by layer; none = all is learned
    keeps_whole: bool = False  # adapters are stored merged into the network

    def write(self, path: Path) -> None:
        """Store the weights, or the adapters alone with a reference to their base network.

        Raises:
            OSError: the disk is full or cannot be written.
        """
        if self.adapted and not self.keeps_whole:
            tensors = adapter_tensors(self.adapted, self.component.architecture)
            metadata = {
                BASE_PATH: self.component.path,
                BASE_SHA256: self.component.sha256,
                BASE_NAME: self.component.name,
            }
            write_tensors(path, tensors, metadata)
            return
        metadata = {}
        if isinstance(self.network, ResidualUNet):
            metadata["config"] = json.dumps(self.network.config.to_json())
        write_tensors(path, self._state(), metadata)

    def _state(self) -> dict[str, Tensor]:
        state = merged_state(self.network, self.adapted)
        if isinstance(self.network, ResidualUNet):
            return state  # ten megabytes; halving them would round for nothing
        return {key: _half(value) for key, value in state.items()}


def _half(value: Tensor) -> Tensor:
    # large networks are served in 16 bits; one that has run away must not become infinite here
    if not value.is_floating_point() or bool((value.abs() > torch.finfo(torch.float16).max).any()):
        return value
    return value.half()


def learn(
    network: nn.Module,
    component: Component,
    *,
    lora_rank: int,
    seed: int,
    keeps_whole: bool = False,
) -> LearnedWeights:
    """Make `network` ready for training; it is changed.

    Args:
        network: float32, as `engines.networks.load_network` returns it.
        component: what it is.
        lora_rank: of the adapters; 0 = all weights are learned.
        seed: decides the numbers that adapters start from.
        keeps_whole: store adapters merged into the network, whose file will not stay.

    Raises:
        TrainingError: the network cannot have adapters.
    """
    speed_up_attention(network)  # the same answers and gradients without the attention matrix
    if lora_rank:
        torch.manual_seed(seed)
        adapted = add_adapters(network, lora_rank)
        return LearnedWeights(
            network=network, component=component, adapted=adapted, keeps_whole=keeps_whole
        )
    for name, weight in network.named_parameters():
        weight.requires_grad_(name not in CONSTANTS)
    return LearnedWeights(network=network, component=component, adapted={})
