"""What a safetensors file holds, by key and shape, without reading its numbers."""

from __future__ import annotations

import json
import struct
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


def safetensors_header(
    path: Path, *, largest: int = LARGEST_HEADER
) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Return shapes by key, and the metadata, of a safetensors file.

    Args:
        path: Of the file.
        largest: Bytes that its header may have.

    Raises:
        CheckpointInvalid: the file is not readable as safetensors.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size - 8, largest):
                raise ValueError("its header is longer than the file, or too long")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        shapes = {key: tuple(entry["shape"]) for key, entry in header.items()}
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if 8 + length + end != size:
            raise ValueError("its end is missing")
        said = {str(key): str(value) for key, value in metadata.items()}
    except (
        *(OSError, ValueError, TypeError, KeyError, AttributeError),
        *(struct.error, RecursionError),
    ) as error:
        raise CheckpointInvalid(f"{path} is no readable safetensors file: {error}.") from error
    return shapes, said
