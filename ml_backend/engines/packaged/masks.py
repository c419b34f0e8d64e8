"""Turns what the network answers into a label image, as the program that it comes from does.

    python masks.py flows.npy masks.tif

reads (3, Y, X), with or without a batch axis in front: Y-flow, X-flow and cell probability (NPY or
TIFF). It needs `pip install cellpose` and nothing else. The defaults are those that this model was
measured with; they stand in manifest.json, beside this file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from cellpose import dynamics, utils

DEFAULTS = {"flow_threshold": 0.4, "cellprob_threshold": 0.0, "iterations": 200, "min_size": 15}


def label_image(
    answer: np.ndarray[Any, np.dtype[np.float32]],
    *,
    flow_threshold: float = 0.4,
    cellprob_threshold: float = 0.0,
    iterations: int = 200,
    min_size: int = 15,
) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Return the label image (Y, X), 0 = background, 1..N = objects.

    Args:
        answer: (3, Y, X) or (1, 3, Y, X).
        flow_threshold: largest accepted flow error; 0 = accept all.
        cellprob_threshold: logit, pixels above it belong to objects.
        iterations: steps along the flows.
        min_size: pixels; smaller objects are dropped.
    """
    flow_y, flow_x, cell_probability = np.asarray(answer, np.float32).reshape(
        -1, *answer.shape[-2:]
    )
    found = dynamics.compute_masks(
        np.stack([flow_y, flow_x]),
        cell_probability,
        niter=iterations,
        cellprob_threshold=cellprob_threshold,
        flow_threshold=flow_threshold,
        min_size=-1,  # once, below, with the holes filled
    )
    filled = utils.fill_holes_and_remove_small_masks(found, min_size=min_size)
    return np.asarray(filled, np.int32)


def defaults() -> dict[str, float]:
    """Return the options that this model was measured with."""
    manifest = Path(__file__).with_name("manifest.json")
    said = json.loads(manifest.read_text("utf-8")).get("masks", {}) if manifest.is_file() else {}
    return {name: said.get(name, usual) for name, usual in DEFAULTS.items()}


def main() -> None:
    """Read the network's answer from a file, write the label image to another."""
    parser = argparse.ArgumentParser(description="Flows and cell probability to a label image.")
    parser.add_argument("answer", type=Path, help="NPY or TIFF that the network's answer is in")
    parser.add_argument("masks", type=Path, help="TIFF for the label image")
    for name, usual in defaults().items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(usual), default=usual, help=f"default: {usual}")
    given = vars(parser.parse_args())
    source, target = given.pop("answer"), given.pop("masks")
    answer = (
        np.load(source, allow_pickle=False) if source.suffix == ".npy" else tifffile.imread(source)
    )
    labels = label_image(answer, **given)
    tifffile.imwrite(target, labels.astype(np.uint32), compression="zlib")
    print(f"{int(labels.max())} objects -> {target}")


if __name__ == "__main__":
    main()
