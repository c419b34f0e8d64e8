"""Label image -> regions -> label image, for every control tag.

    python benchmarks/conversion.py [--cells 1000] [--diameter 40] [--size 2048] [--json FILE]

Masks (brush and bitmask) are measured one region per cell, and merged into one region. `IoU` is
the median over cells of what comes back.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rle import draw_discs

from ml_backend.domain import ControlTag, Segmentation
from ml_backend.labelstudio.annotations import from_regions
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.labelstudio.merging import PER_PIXEL
from ml_backend.labelstudio.results import build_result

CONFIG = (
    '<View><Image name="image" value="$image"/>'
    '<{tag} name="cells" toName="image" model_max_regions="{limit}">'
    '<Label value="Cell"/></{tag}></View>'
)


def measure(labels: np.ndarray, tag: ControlTag, limit: int, rounds: int) -> dict[str, Any]:
    """Return the times, size and IoU of one tag."""
    config = parse_label_config(CONFIG.format(tag=tag.value, limit=limit))
    scores = np.full(int(labels.max()), 0.9, dtype=np.float32)
    found = {"cells": Segmentation(labels=labels, scores=scores, diameter=40.0)}
    writing, reading = [], []
    for _ in range(rounds):
        begin = time.perf_counter()
        regions = build_result(found, config).regions
        writing.append(time.perf_counter() - begin)
    text = json.dumps(regions)
    received = json.loads(text)
    for _ in range(rounds):
        begin = time.perf_counter()
        back = from_regions(received, config.controls[0], *labels.shape)
        reading.append(time.perf_counter() - begin)
    return {
        "tag": tag.value,
        "regions": len(regions),
        "write_ms": statistics.median(writing) * 1000,
        "read_ms": statistics.median(reading) * 1000,
        "megabytes": len(text) / 1e6,
        "iou": median_iou(labels, back.labels),
        "instances": int(back.labels.max()),
    }


def median_iou(truth: np.ndarray, found: np.ndarray) -> float:
    """Return the median over instances of the best IoU with an instance of `found`."""
    columns = int(found.max()) + 1
    pairs, overlap = np.unique(truth.astype(np.int64) * columns + found, return_counts=True)
    first, second = np.divmod(pairs, columns)
    areas, found_areas = np.bincount(truth.ravel()), np.bincount(found.ravel())
    best = np.zeros(len(areas))
    both = (first > 0) & (second > 0)
    union = areas[first[both]] + found_areas[second[both]] - overlap[both]
    np.maximum.at(best, first[both], overlap[both] / union)
    return float(np.median(best[1:]))


def main() -> None:
    """Measure, print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--diameter", type=int, default=40, help="pixels")
    parser.add_argument("--size", type=int, default=2048, help="edge of the image in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the JSON here")
    given = parser.parse_args()

    labels = draw_discs(given.cells, given.diameter, given.size)
    rows = []
    for tag in ControlTag:
        if not tag.value.endswith("Labels"):
            continue
        rows.append(measure(labels, tag, 10**6, given.rounds))
        if tag in PER_PIXEL:
            rows.append(measure(labels, tag, 0, given.rounds))
    table = Table(
        title=f"{given.cells} cells of {given.diameter} px at {given.size} x {given.size}"
    )
    for heading in ("tag", "regions", "write ms", "read ms", "JSON MB", "IoU", "read back"):
        table.add_column(heading, justify="left" if heading == "tag" else "right")
    for row in rows:
        table.add_row(
            row["tag"],
            str(row["regions"]),
            f"{row['write_ms']:.0f}",
            f"{row['read_ms']:.0f}",
            f"{row['megabytes']:.2f}",
            f"{row['iou']:.4f}",
            str(row["instances"]),
        )
    Console().print(table)
    text = json.dumps({"rows": rows, "given": {k: str(v) for k, v in vars(given).items()}})
    print(text)
    if given.json:
        given.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
