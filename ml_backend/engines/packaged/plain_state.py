"""Weights as every program reads them: float32, each tensor for itself."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def plain_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` so that `torch.save` writes its numbers once and nothing else.

    Tensors that are so already are not copied: a transformer has 1.2 GB of them.
    """
    return {key: _plain(tensor.detach()) for key, tensor in state.items()}


def _plain(tensor: Tensor) -> Tensor:
    converted = tensor.float() if tensor.is_floating_point() else tensor
    own = converted.numel() * converted.element_size()
    is_whole = converted.is_contiguous() and converted.untyped_storage().nbytes() == own
    return converted if is_whole else converted.clone().contiguous()
