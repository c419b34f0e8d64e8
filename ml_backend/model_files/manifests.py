"""The manifests of version folders and of built-in networks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ml_backend.errors import CheckpointInvalid

WEIGHTS_FILE: Final = "weights.safetensors"
MANIFEST_FILE: Final = "manifest.json"


def manifest_of(weights: Path) -> Mapping[str, Any]:
    """Return the manifest that belongs to a weights file.

    Raises:
        CheckpointInvalid: there is none, or it cannot be read.
    """
    beside = weights.with_suffix(".json")
    return read_manifest(beside if beside.is_file() else weights.parent / MANIFEST_FILE)


def read_manifest(path: Path) -> dict[str, Any]:
    """Return a manifest, which says at least the `sha256` of its weights.

    Raises:
        CheckpointInvalid: there is none, or it cannot be read.
    """
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointInvalid(
            f"There is no {path.name} in {path.parent}; a model folder holds {WEIGHTS_FILE} and "
            f"{MANIFEST_FILE}."
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointInvalid(f"The manifest {path} cannot be read: {error}.") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("sha256"), str):
        raise CheckpointInvalid(f"The manifest {path} does not say the sha256 of its weights.")
    return manifest


def diameter_of(manifest: Mapping[str, Any], folder: Path) -> float | None:
    """Return the diameter of the objects that a network was fine-tuned on (pixels, image frame).

    Raises:
        CheckpointInvalid: the manifest says something that is none.
    """
    said = manifest.get("diameter")
    if said is None:
        return None
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 < said < 1e5:
        raise CheckpointInvalid(
            f"The manifest in {folder} says the diameter {said!r}, which is no size in pixels."
        )
    return float(said)
