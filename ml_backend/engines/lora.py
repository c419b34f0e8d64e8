"""Adapters (LoRA): a few megabytes that change a transformer's attention, kept beside its base.

An adapter of a linear layer W is a pair of narrow matrices: W becomes W + up @ down. The file names
its base network by path and hash, and loading merges the two, so that serving runs no slower. Keys
are `lora/ARCHITECTURE/LAYER/down` (rank, inputs) and `.../up` (outputs, rank).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from torch import Tensor

from ml_backend.engines.catalogue import ADAPTER_PREFIX, file_sha256
from ml_backend.engines.checkpoint_keys import safetensors_header
from ml_backend.engines.checkpoints import read_checkpoint
from ml_backend.errors import CheckpointInvalid

BASE_PATH: Final = "base_path"  # in the file's metadata
BASE_SHA256: Final = "base_sha256"
BASE_NAME: Final = "base_name"
MOST_BASES: Final = 20  # each trained from the one before; more is a circle


def adapter_key(architecture: str, layer: str, part: str) -> str:
    """Return the key of a matrix, `part` is "down" or "up"."""
    return f"{ADAPTER_PREFIX}{architecture}/{layer}/{part}"


def are_adapters(keys: Iterable[str]) -> bool:
    """Return whether a checkpoint with these keys holds adapters and no network."""
    return any(key.startswith(ADAPTER_PREFIX) for key in keys)


def merge(base_state: Mapping[str, Tensor], adapters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `base_state` with each adapter added to its layer's weight; both stay as they are.

    Raises:
        CheckpointInvalid: an adapter has no partner, no layer, or another shape.
    """
    merged = dict(base_state)
    for key in adapters:
        layer, _, part = key.removeprefix(ADAPTER_PREFIX).partition("/")[2].rpartition("/")
        other = f"{key.rpartition('/')[0]}/{'up' if part == 'down' else 'down'}"
        weight = f"{layer}.weight"
        if part not in ("down", "up") or other not in adapters or weight not in base_state:
            raise CheckpointInvalid(
                f"The adapter {key} fits no layer of its base network; it is damaged or belongs to "
                "another one."
            )
        if part == "up":
            continue
        down, up = adapters[key].float(), adapters[other].float()
        before = base_state[weight]
        if (up.shape[0], down.shape[1]) != tuple(before.shape) or up.shape[1] != down.shape[0]:
            raise CheckpointInvalid(
                f"The adapter of {layer} has another shape than the layer; it is damaged or "
                "belongs to another network."
            )
        merged[weight] = before.float() + up @ down
    return merged


def read_state(path: Path, *, depth: int = 0) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by key; adapters come merged into their base network.

    Raises:
        CheckpointInvalid: a file cannot be read, or the base network is not what it was.
        ModelNotFound: the base network is gone.
    """
    state = read_checkpoint(path)
    if not are_adapters(state):
        return state
    metadata = safetensors_header(path)[1]
    if BASE_PATH not in metadata or BASE_SHA256 not in metadata or depth >= MOST_BASES:
        raise CheckpointInvalid(
            f"{path} holds adapters, but does not say which network they belong to."
        )
    base = Path(metadata[BASE_PATH])
    if file_sha256(base) != metadata[BASE_SHA256]:
        raise CheckpointInvalid(
            f"{path} holds adapters of {metadata.get(BASE_NAME, base.name)!r}, whose file {base} "
            "has changed since; put the old one back."
        )
    return merge(read_state(base, depth=depth + 1), state)
