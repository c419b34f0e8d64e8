"""Brush RLE of many cells: our codec beside the one of Label Studio's SDK, on the same masks.

    python benchmarks/rle.py [--cells 1000] [--diameter 40] [--size 2048] [--sample 20]

Encoding takes all cells of one label image in one call and gives bytes; the SDK encodes one mask
per call, so that only a sample of the cells is timed and scaled to all (both columns say per
cell). The floor is what any encoder must do: compare each pixel of the label image with the next
one, and write the bytes. Times are medians over rounds in which both sides take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from label_studio_sdk.converter.brush import decode_rle, mask2rle
from rich.console import Console
from rich.table import Table

from ml_backend.labelstudio.rle import decode_mask, decode_rows, encode_label_image


def draw_discs(cells: int, diameter: int, size: int) -> np.ndarray:
    """Return a (size, size) int32 label image with discs on a grid."""
    labels = np.zeros((size, size), dtype=np.int32)
    offset = np.arange(diameter) - (diameter - 1) / 2
    disc = offset[:, None] ** 2 + offset**2 < (diameter / 2) ** 2
    columns = int(np.ceil(np.sqrt(cells)))
    places = np.linspace(0, size - diameter, columns).astype(int)
    for index in range(cells):
        y, x = places[index // columns], places[index % columns]
        labels[y : y + diameter, x : x + diameter][disc] = index + 1
    return labels


def seconds(work: Callable[[], Any]) -> float:
    """Return how long `work` takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def measure(labels: np.ndarray, cells: int, sample: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row for encoding and two for decoding, times in seconds per cell."""
    chosen = np.linspace(1, cells, sample).astype(int).tolist()
    masks = [((labels == label) * 255).astype(np.uint8) for label in chosen]
    encoded = encode_label_image(labels)
    streams = [list(encoded[label - 1]) for label in chosen]
    for label, mask in zip(chosen, masks, strict=True):
        assert list(encoded[label - 1]) == mask2rle(mask), "not bit-exact"
        assert np.array_equal(decode_mask(encoded[label - 1], *labels.shape), mask)

    def floor() -> None:
        flat = labels.ravel()
        np.flatnonzero(flat[1:] != flat[:-1])
        [bytearray(stream) for stream in encoded]

    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, work, count in (
            ("encode", lambda: encode_label_image(labels), cells),
            ("encode floor", floor, cells),
            ("encode sdk", lambda: [mask2rle(mask) for mask in masks], sample),
            ("decode", lambda: [decode_mask(rle, *labels.shape) for rle in streams], sample),
            ("rows", lambda: [decode_rows(rle, *labels.shape) for rle in streams], sample),
            ("decode sdk", lambda: [decode_rle(rle) for rle in streams], sample),
        ):
            times.setdefault(name, []).append(seconds(work) / count)
    median = {name: statistics.median(values) for name, values in times.items()}
    return [
        row("encode, all cells in one call", median["encode"], median["encode sdk"])
        | {"floor_us": median["encode floor"] * 1e6},
        row("decode to a frame", median["decode"], median["decode sdk"]),
        row("decode to the rows with ink", median["rows"], median["decode sdk"]),
    ]


def row(what: str, ours: float, sdk: float) -> dict[str, Any]:
    """Return what was measured of one piece of work."""
    return {"what": what, "ours_us": ours * 1e6, "sdk_us": sdk * 1e6, "ratio": sdk / ours}


def main() -> None:
    """Measure, print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--diameter", type=int, default=40, help="pixels")
    parser.add_argument("--size", type=int, default=2048, help="edge of the image in pixels")
    parser.add_argument("--sample", type=int, default=20, help="cells given to the SDK")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the JSON here")
    given = parser.parse_args()

    labels = draw_discs(given.cells, given.diameter, given.size)
    rows = measure(labels, given.cells, min(given.sample, given.cells), given.rounds)
    table = Table(
        title=f"{given.cells} cells of {given.diameter} px at {given.size} x {given.size}, "
        f"microseconds per cell; SDK measured on {min(given.sample, given.cells)} cells"
    )
    for heading in ("", "ours", "SDK", "times faster", "floor", "ours / floor"):
        table.add_column(heading, justify="left" if not heading else "right")
    for entry in rows:
        floor = entry.get("floor_us")
        table.add_row(
            entry["what"],
            f"{entry['ours_us']:.1f}",
            f"{entry['sdk_us']:.0f}",
            f"{entry['ratio']:.0f}",
            f"{floor:.1f}" if floor else "",
            f"{entry['ours_us'] / floor:.1f}" if floor else "",
        )
    Console().print(table)
    text = json.dumps({"rows": rows, "given": {k: str(v) for k, v in vars(given).items()}})
    print(text)
    if given.json:
        given.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
