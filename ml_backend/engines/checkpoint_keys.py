"""What a checkpoint holds, by key and shape, without reading its numbers."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

from ml_backend.errors import CheckpointInvalid

LARGEST_HEADER = 100_000_000  # bytes, the limit of the safetensors format


def is_safetensors(path: Path) -> bool:
    """Return whether the file is named as, or looks like, safetensors."""
    if path.suffix == ".safetensors":
        return True
    with path.open("rb") as file:
        head = file.read(9)
    # eight bytes of length, then JSON; a torch file is a zip archive ("PK")
    return len(head) == 9 and head[8:9] == b"{" and not head.startswith(b"PK")


def safetensors_header(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Return shapes by key, and the metadata, of a safetensors file. Needs no torch.

    Raises:
        CheckpointInvalid: the file is not readable as safetensors.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size - 8, LARGEST_HEADER):
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        shapes = {key: tuple(entry["shape"]) for key, entry in header.items()}
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if 8 + length + end != size:
            raise ValueError("its end is missing")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, struct.error) as error:
        raise CheckpointInvalid(f"{path} is no readable safetensors file: {error}.") from error
    return shapes, {str(key): str(value) for key, value in metadata.items()}


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
