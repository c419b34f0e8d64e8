"""What the files of a package are called."""

from __future__ import annotations

from typing import Final

DESCRIPTION: Final = "bioimageio.yaml"
READ_ME: Final = "README.md"
COVER: Final = "cover.png"
ARCHITECTURE: Final = "architecture.py"
WEIGHTS: Final = "weights.pt"
TORCHSCRIPT: Final = "weights-torchscript.pt"
TEST_INPUT: Final = "test_input.npy"
TEST_OUTPUT: Final = "test_output.npy"
SAMPLE_INPUT: Final = "sample_input.tif"
SAMPLE_OUTPUT: Final = "sample_output.png"
MASKS: Final = "masks.py"
MANIFEST: Final = "manifest.json"
OWN_WEIGHTS: Final = "weights.safetensors"
"""The weights as this program keeps them, where they say how their network is built."""

OWN_CONFIG: Final = "label_studio_cell_backend"
"""The key in the description's `config` under which this program finds its own files again."""
