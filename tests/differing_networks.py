"""Networks of one architecture that answer so differently that an answer tells which it was."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from ml_backend.domain import Component
from ml_backend.engines.catalogue import (
    MANIFEST_FILE,
    WEIGHTS_FILE,
    built_in_networks,
    component_of_version,
    file_sha256,
)
from ml_backend.engines.checkpoint_keys import safetensors_header

CELL_PROBABILITY = 2  # the output channel after both flows


def make_version(
    folder: Path, name: str, *, bias: float, diameter: float | None = None, mark: float = 0.0
) -> Component:
    """Write the built-in network as a version that sees more or less of everything.

    Args:
        folder: gets a folder `name`.
        name: of the version.
        bias: is added to the cell probability (logit): -1000 finds nothing, -4 less of each cell.
        diameter: goes into the manifest.
        mark: changes a number that hardly matters, so that the weights have a hash of their own.
    """
    (built_in, *_) = built_in_networks()
    state = load_file(str(built_in.path))
    shifted = state["head.bias"].clone()
    shifted[CELL_PROBABILITY] += bias + mark
    version = folder / name
    version.mkdir(parents=True)
    weights = version / WEIGHTS_FILE
    metadata = safetensors_header(built_in.path)[1]
    save_file({**state, "head.bias": shifted.float()}, str(weights), metadata=metadata or None)
    manifest = json.loads(built_in.path.with_suffix(".json").read_text())
    manifest |= {"name": name, "sha256": file_sha256(weights), "diameter": diameter}
    (version / MANIFEST_FILE).write_text(json.dumps(manifest))
    return component_of_version(version)
