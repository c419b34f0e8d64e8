"""Muon for the convolutions, AdamW for the rest, and a running average of the weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ml_backend.engines.residual_unet import ResidualUNet


def orthogonalise(update: Tensor, steps: int = 4) -> Tensor:
    """update: (rows, columns) -> about the nearest matrix whose singular values are all 1.

    Newton-Schulz iteration with the coefficients of Jordan et al., "Muon" (2024).
    """
    flat = update.shape[0] > update.shape[1]
    x = update.T if flat else update
    x = (x / (x.norm() + 1e-7)).bfloat16()
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    out: Tensor = x.T if flat else x
    return out.to(update.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum whose update of a convolution's (out, in x kernel) matrix is made orthogonal."""

    def __init__(
        self, params: list[Tensor], lr: float, momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, _closure: None = None) -> None:  # type: ignore[override]
        """Apply the gradients."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                average = self.state[weight].setdefault("average", torch.zeros_like(weight))
                average.lerp_(weight.grad, 1 - group["momentum"])
                nesterov = weight.grad.lerp(average, group["momentum"])
                update = orthogonalise(nesterov.reshape(len(weight), -1))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update.reshape(weight.shape), alpha=-group["lr"])


def optimisers(net: ResidualUNet, lr: float, adam_lr: float) -> list[torch.optim.Optimizer]:
    """Muon on every inner convolution; AdamW on the first one, the head, norms and biases."""
    inner: list[Tensor] = []
    outer: list[Tensor] = []
    for name, weight in net.named_parameters():
        is_inner = weight.ndim == 4 and not name.startswith(("stem", "head"))
        (inner if is_inner else outer).append(weight)
    adam = torch.optim.AdamW(outer, lr=adam_lr, betas=(0.9, 0.99), weight_decay=1e-4)
    return [Muon(inner, lr=lr, weight_decay=0.05), adam]


class WeightAverage:
    """Exponential moving average of a network's weights and batch-norm statistics."""

    def __init__(self, net: ResidualUNet, decay: float) -> None:
        self.net = copy.deepcopy(net).eval()
        self.net.requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, net: ResidualUNet, step: int) -> None:
        """Follow `net`; early on the average is short, so that it forgets the initialisation."""
        rate = 1 - min(self._decay, (1 + step) / (10 + step))
        for mean, value in zip(
            self.net.state_dict().values(), net.state_dict().values(), strict=True
        ):
            if mean.is_floating_point():
                mean.lerp_(value, rate)
            else:
                mean.copy_(value)
