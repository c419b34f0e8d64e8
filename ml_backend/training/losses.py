"""Cellpose's loss with a weight per pixel, so that unfinished regions count nothing."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

FLOW_LENGTH = 5.0  # of the flows that a network answers; the true ones have length 1


def weighted_loss(answer: Tensor, target: Tensor) -> Tensor:
    """Return the sum of the loss over all pixels, each times its weight.

    Divided by the sum of the weights it is `cellpose.train._loss_fn_seg` where all weights are 1.

    Args:
        answer: (N, 3, Y, X) Y-flow, X-flow, logit of the cell probability.
        target: (N, 4, Y, X) Y-flow, X-flow (length 1), inside an object (0 or 1), weight.
    """
    answer = answer.float()  # sums over many pixels need more than 16 bits
    weight = target[:, 3]
    flow = (answer[:, :2] - FLOW_LENGTH * target[:, :2]).square().mean(dim=1)
    inside = F.binary_cross_entropy_with_logits(answer[:, 2], target[:, 2], reduction="none")
    return ((flow / 2 + inside) * weight).sum()
