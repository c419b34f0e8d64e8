"""What a checkpoint holds, by key and shape."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ml_backend.errors import CheckpointInvalid
from ml_backend.model_files.headers import is_safetensors, safetensors_header

__all__ = ["checkpoint_shapes", "is_safetensors", "safetensors_header"]


def checkpoint_shapes(path: Path) -> Mapping[str, tuple[int, ...]]:
    """Return shapes by key of a safetensors or torch checkpoint (only the latter needs torch).

    Raises:
        CheckpointInvalid: the file is not readable as either.
    """
    try:
        if is_safetensors(path):
            return safetensors_header(path)[0]
    except OSError as error:
        raise CheckpointInvalid(f"{path} cannot be read: {error.strerror}.") from error
    from ml_backend.engines.checkpoints import read_torch_checkpoint  # torch takes a second

    return {key: tuple(value.shape) for key, value in read_torch_checkpoint(path).items()}
