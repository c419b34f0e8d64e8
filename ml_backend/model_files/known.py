"""Networks with names of their own: those in this package, and those Cellpose publishes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ml_backend.model_files.architectures import DINO_VITB, DINO_VITL, SAM_VITL
from ml_backend.model_files.manifests import read_manifest

AUTO: Final = "auto"
CELLPOSE_MODELS: Final[Mapping[str, str]] = {
    "cpsam_v2": SAM_VITL,
    "cpsam": SAM_VITL,
    "cpdino": DINO_VITL,
    "cpdino-vitb": DINO_VITB,
}
CELLPOSE_LICENCE: Final = "CC-BY-NC-4.0"  # of all published weights: their training data's
BUILT_IN_FOLDER: Final = Path(__file__).parents[1] / "engines" / "weights"


@dataclass(frozen=True, kw_only=True)
class BuiltIn:
    """A network whose weights are shipped inside this package."""

    name: str
    path: Path
    sha256: str
    licence: str


def built_in_networks(folder: Path = BUILT_IN_FOLDER) -> list[BuiltIn]:
    """Return the shipped networks, the default first.

    Raises:
        CheckpointInvalid: a manifest cannot be read.
    """
    found = []
    for manifest_path in sorted(folder.glob("*.json")):
        manifest = read_manifest(manifest_path)
        found.append(
            BuiltIn(
                name=str(manifest.get("name", manifest_path.stem)),
                path=folder / str(manifest.get("file", f"{manifest_path.stem}.safetensors")),
                sha256=str(manifest["sha256"]),
                licence=str(manifest.get("licence", "unknown")),
            )
        )
    return found


def model_names(folder: Path = BUILT_IN_FOLDER) -> list[str]:
    """Return the names of all of them, ours first."""
    return [network.name for network in built_in_networks(folder)] + list(CELLPOSE_MODELS)
