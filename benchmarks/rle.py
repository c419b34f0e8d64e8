"""Brush RLE of many cells: our codec beside the one of Label Studio's SDK, on the same masks.

    python benchmarks/rle.py [--cells 1000] [--diameter 40] [--size 2048] [--sample 20]

Encoding takes all cells of one label image in one call and gives bytes; the SDK encodes one mask
per call, so that only a sample of the cells is timed and scaled to all (both columns say per
cell). The floor is what any encoder must do: compare each pixel of the label image with the next
one, and write the bytes. The floor of decoding is a fresh frame of zeros, or fresh rows, with the
cell's pixels written: pages of memory that nobody writes cost nothing until somebody reads them,
so that the last row also counts the pixels of the whole frame, on both sides. Every sampled cell
is compared with the SDK's answer first. Times are medians over rounds in which both take turns.
"""

from __future__ import annotations

import argparse
import json
import mmap
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
    """Return a row for encoding and three for decoding, times in microseconds per cell."""
    chosen = np.linspace(1, cells, sample).astype(int).tolist()
    masks = [((labels == label) * 255).astype(np.uint8) for label in chosen]
    encoded = encode_label_image(labels)
    streams = [list(encoded[label - 1]) for label in chosen]
    for label, mask in zip(chosen, masks, strict=True):
        assert list(encoded[label - 1]) == mask2rle(mask), "not bit-exact"
        frame = decode_mask(encoded[label - 1], *labels.shape)
        top, rows = decode_rows(encoded[label - 1], *labels.shape)
        assert np.array_equal(frame, mask), "not the mask that was encoded"
        assert np.array_equal(decode_rle(list(encoded[label - 1]))[3::4], frame.ravel())
        assert np.array_equal(rows, mask[top : top + len(rows)])
        assert rows.sum() == mask.sum()
    runs = [np.flatnonzero(np.diff(mask.ravel(), prepend=0, append=0)) for mask in masks]
    spans = [list(zip(each[::2].tolist(), each[1::2].tolist(), strict=True)) for each in runs]

    def floor() -> None:
        flat = labels.ravel()
        np.flatnonzero(flat[1:] != flat[:-1])
        [bytearray(stream) for stream in encoded]

    def each(work: Callable[[list[int]], Any]) -> Callable[[], None]:
        # dropped one by one: to keep the SDK's 16 MB each would charge it for fresh memory
        def run() -> None:
            for stream in streams:
                work(stream)

        return run

    def frame_floor() -> None:
        for pairs in spans:
            fresh = mmap.mmap(-1, labels.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            frame = np.frombuffer(fresh, dtype=np.uint8)
            for start, stop in pairs:
                frame[start:stop] = 255

    def rows_floor() -> None:
        width = labels.shape[1]
        for pairs in spans:
            offset = pairs[0][0] // width * width
            rows = np.zeros(-(-pairs[-1][1] // width) * width - offset, dtype=np.uint8)
            for start, stop in pairs:
                rows[start - offset : stop - offset] = 255

    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, work, count in (
            ("encode", lambda: encode_label_image(labels), cells),
            ("encode floor", floor, cells),
            ("encode sdk", lambda: [mask2rle(mask) for mask in masks], sample),
            ("decode", each(lambda rle: decode_mask(rle, *labels.shape)), sample),
            ("rows", each(lambda rle: decode_rows(rle, *labels.shape)), sample),
            ("count", each(lambda rle: np.count_nonzero(decode_mask(rle, *labels.shape))), sample),
            ("decode floor", frame_floor, sample),
            ("rows floor", rows_floor, sample),
            ("decode sdk", each(decode_rle), sample),
            ("count sdk", each(lambda rle: np.count_nonzero(decode_rle(rle)[3::4])), sample),
        ):
            times.setdefault(name, []).append(seconds(work) / count)
    median = {name: statistics.median(values) for name, values in times.items()}
    return [
        row("encode, all cells in one call", median["encode"], median["encode sdk"])
        | {"floor_us": median["encode floor"] * 1e6},
        row("decode to the rows with ink", median["rows"], median["decode sdk"])
        | {"floor_us": median["rows floor"] * 1e6},
        row("decode to a frame", median["decode"], median["decode sdk"])
        | {"floor_us": median["decode floor"] * 1e6},
        row("decode to a frame and count all its pixels", median["count"], median["count sdk"]),
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
