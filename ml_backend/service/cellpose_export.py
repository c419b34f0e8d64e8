"""A network as a checkpoint that Cellpose itself loads, in its programs and from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch

from ml_backend.domain import Component
from ml_backend.engines.lora import read_state
from ml_backend.engines.packaged.plain_state import plain_state
from ml_backend.errors import CheckpointInvalid, ModelError
from ml_backend.model_files.architectures import DINO_VITB, DINO_VITL, SAM_VITL
from ml_backend.model_files.hashes import file_sha256

CELLPOSE_ARCHITECTURES: Final = frozenset({SAM_VITL, DINO_VITL, DINO_VITB})
DIAMETER_KEY: Final = "diam_labels"  # what Cellpose's training says of the objects' size
PROOF_KEY: Final = "W2"  # without it Cellpose takes a file for one of its third version


def write_cellpose_checkpoint(component: Component, target: Path) -> None:
    """Write the network of `component` as Cellpose 4 writes its own; adapters are merged into it.

    Raises:
        ModelError: it is no network of Cellpose's.
        CheckpointInvalid: its weights are damaged or were replaced.
        OSError: the disk is full or cannot be written.
    """
    refuse_other_architectures(component)
    source = Path(component.path)
    if file_sha256(source) != component.sha256:
        raise CheckpointInvalid(
            f"The weights of {component.name!r} changed on disk since they were registered; "
            "register the model again."
        )
    state = read_state(source)
    if PROOF_KEY not in state:
        raise CheckpointInvalid(
            f"The weights of {component.name!r} lack {PROOF_KEY}, so Cellpose would not load them."
        )
    whole = plain_state(state)  # Cellpose loads float32 and converts by itself
    if component.diameter is not None and DIAMETER_KEY in whole:
        whole[DIAMETER_KEY] = torch.full_like(whole[DIAMETER_KEY], component.diameter)
    torch.save(whole, target)


def refuse_other_architectures(component: Component) -> None:
    """Check that Cellpose can build the network of `component`.

    Raises:
        ModelError: it cannot.
    """
    if component.architecture not in CELLPOSE_ARCHITECTURES:
        raise ModelError(
            f"{component.name!r} is a {component.architecture}, which Cellpose cannot build; export"
            " it as a BioImage.IO package instead (bioimageio)."
        )
