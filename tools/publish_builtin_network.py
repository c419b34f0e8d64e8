"""Copy trained weights into the package, with the manifest that says what they are.

python tools/publish_builtin_network.py --run runs/1 --name nuclei-1 --metrics metrics.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file

WEIGHTS = Path(__file__).resolve().parents[1] / "ml_backend" / "engines" / "weights"


def manifest_of(weights: Path, name: str, metrics: dict[str, Any]) -> dict[str, Any]:
    """weights: a file written by train_builtin_network.py -> the manifest's fields."""
    with safe_open(str(weights), "pt") as file:
        config = json.loads(file.metadata()["config"])
        sizes = {key: file.get_tensor(key).numel() for key in file.keys()}  # noqa: SIM118
    learned = (key for key in sizes if not key.endswith(("running_mean", "running_var", "tracked")))
    return {
        "name": name,
        "file": f"builtin-{name}.safetensors",
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "bytes": weights.stat().st_size,
        "architecture": {"class": "ResidualUNet", "config": config},
        "parameters": sum(sizes[key] for key in learned),
        "stored_as": "float16; cast to float32 after loading",
        "licence": "CC0-1.0",
        "training_data": {
            "name": "BBBC038 (2018 Data Science Bowl, stage 1): 475 images of nuclei",
            "licence": "CC0-1.0",
            "address": "https://bbbc.broadinstitute.org/BBBC038",
        },
        **metrics,
    }


def calibrate(source: Path, target: Path, shift: float) -> None:
    """Copy weights, adding `shift` to the bias of the cell-probability logit."""
    tensors = load_file(str(source))
    with safe_open(str(source), "pt") as file:
        metadata = file.metadata()
    bias = tensors["head.bias"].float()
    bias[2] += shift
    tensors["head.bias"] = bias.half()
    aside = target.with_suffix(".part")
    save_file(tensors, str(aside), metadata=metadata)
    aside.chmod(0o644)
    os.replace(aside, target)


def main() -> None:
    """Write the weights, then the manifest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--run", type=Path, required=True, help="--out of train_builtin_network.py")
    parser.add_argument("--name", default="nuclei-1")
    parser.add_argument(
        "--metrics", type=Path, required=True, help="JSON: command, inference settings, accuracy"
    )
    parser.add_argument(
        "--shift",
        type=float,
        default=0.0,
        help="added to the cell-probability logit, so that a threshold of 0 is the best one",
    )
    options = parser.parse_args()
    stem = f"builtin-{options.name}"
    weights = WEIGHTS / f"{stem}.safetensors"
    calibrate(options.run / "average.safetensors", weights, options.shift)
    fields = json.loads(options.metrics.read_text())
    fields["cell_probability_shift"] = options.shift
    manifest = json.dumps(manifest_of(weights, options.name, fields), indent=2) + "\n"
    aside = WEIGHTS / f"{stem}.json.part"
    aside.write_text(manifest)
    os.replace(aside, WEIGHTS / f"{stem}.json")


if __name__ == "__main__":
    main()
