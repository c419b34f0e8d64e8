"""Traces a packaged network in a process of its own, from its files alone.

    python -I torchscript_program.py FOLDER PLAN.json

Started by `package_programs`. Writes the traced network where the plan says, unless the trace
answers otherwise than the network does for another size or number of images.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

LARGEST_DIFFERENCE = 1e-4
LONG_AGO = (1980, 1, 1, 0, 0, 0)
EXIT_UNFAITHFUL = 3


def main(folder: Path, plan: dict[str, Any]) -> int:
    """Trace the network; return 0 if it is written, EXIT_UNFAITHFUL if it is not to be."""
    network = load(folder, plan)
    least, step, channels = plan["least"], plan["step"], plan["channels"]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace: Any = torch.jit.trace
        traced = trace(network, torch.rand(1, channels, least, least + step))
        for shape in ((1, least + step, least), (2, least, least + 2 * step)):
            images = torch.rand(shape[0], channels, *shape[1:])
            difference = float((traced(images) - network(images)).abs().max())
            if not difference <= LARGEST_DIFFERENCE:
                return EXIT_UNFAITHFUL
    aside = folder / (plan["target"] + ".whole")
    torch.jit.save(traced, str(aside))
    without_sources(aside, folder / plan["target"])
    aside.unlink()
    return 0


def load(folder: Path, plan: dict[str, Any]) -> nn.Module:
    """Return the network that the files in `folder` describe."""
    spec = importlib.util.spec_from_file_location("architecture", folder / plan["architecture"])
    assert spec is not None  # noqa: S101  # there is a loader for .py
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    sys.modules["architecture"] = module
    spec.loader.exec_module(module)
    network: nn.Module = getattr(module, plan["callable"])(**plan["arguments"])
    state = torch.load(folder / plan["weights"], map_location="cpu", weights_only=True)
    network.load_state_dict(state, strict=True)
    return network.eval()


def without_sources(saved: Path, target: Path) -> None:
    """Copy a saved network without where its code lay on this machine, and what follows from it."""
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(target, "w") as stripped:
        for entry in source.infolist():
            if not entry.filename.endswith((".debug_pkl", "/serialization_id")):
                stripped.writestr(zipfile.ZipInfo(entry.filename, LONG_AGO), source.read(entry))


if __name__ == "__main__":
    torch.manual_seed(0)
    sys.exit(main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text("utf-8"))))
