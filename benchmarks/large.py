"""A 4160 x 4176 image: seams, and how memory grows with area.

    python benchmarks/large.py [--model auto] [--megapixels 2 4 8 17]

Seams: the mosaic in ../shared/data/large is made of fields of 520 x 696 pixels. Its average
precision in one piece must be within 0.01 of the same image cut at the fields' borders, each field
segmented alone with the diameter that was found in the whole. Where the data is not here,
generated fields are put together the same way.

Memory: each area is segmented in a process of its own; `extra` is the peak of that process minus
what it had when network and image were loaded. The floor is what a result needs anyway: flows and
cell probability (12 bytes a pixel, float32), the label image (4) and one normalised channel (4).
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from image_sets import FIELD_YX, SHARED, Annotated, crop, nuclei, read_set
from rich.console import Console
from rich.table import Table

from ml_backend.domain import Component, Image, Priority, SegmentationOptions
from ml_backend.engines.catalogue import resolve_component
from ml_backend.engines.cellpose import CellposeSegmenter, open_segmenter
from ml_backend.engines.device_profile import open_device
from ml_backend.imaging.matching import match_instances
from ml_backend.settings import read_settings

FLOOR_BYTES = 20  # a pixel


def mosaic() -> Annotated:
    """Return the large image with its ground truth."""
    if (SHARED / "large").is_dir():
        return read_set("large")[0]
    height, width = FIELD_YX
    rows, columns, fields = 8, 6, nuclei(696, 4)
    pixels = np.zeros((rows * height, columns * width, 1), np.uint8)
    truth = np.zeros(pixels.shape[:2], np.int32)
    for index in range(rows * columns):
        field = fields[index % len(fields)]
        top, left = index // columns * height, index % columns * width
        part = field.truth[:height, :width]
        pixels[top : top + height, left : left + width] = field.image.pixels[:height, :width]
        truth[top : top + height, left : left + width] = np.where(part, part + truth.max(), 0)
    return Annotated(name="mosaic", image=Image(pixels=pixels, sha256="mosaic"), truth=truth)


def in_fields(
    segmenter: CellposeSegmenter,
    component: Component,
    whole: Annotated,
    options: SegmentationOptions,
) -> tuple[np.ndarray, np.ndarray]:
    """Return label image and ground truth with everything cut at the fields' borders."""
    labels, truth = np.zeros_like(whole.truth), np.zeros_like(whole.truth)
    height, width = FIELD_YX
    for top in range(0, whole.truth.shape[0], height):
        for left in range(0, whole.truth.shape[1], width):
            rows, columns = slice(top, top + height), slice(left, left + width)
            field = crop(whole, rows, columns)
            found = segmenter.segment(
                field.image, options, component=component, priority=Priority.BATCH
            ).labels
            labels[rows, columns] = np.where(found, found + labels.max(), 0)
            truth[rows, columns] = np.where(field.truth, field.truth + truth.max(), 0)
    return labels, truth


def seams(component: Component, device_name: str, diameter: float | None) -> dict[str, Any]:
    """Return average precision in one piece and in fields."""
    whole = mosaic()
    options = SegmentationOptions(diameter=diameter)
    with open_segmenter(open_device(device_name), flow_cache_mb=1) as segmenter:
        segmenter.warm(component)
        started = time.perf_counter()
        result = segmenter.segment(
            whole.image, options, component=component, priority=Priority.BATCH
        )
        seconds = time.perf_counter() - started
        same = SegmentationOptions(diameter=result.diameter)
        labels, truth = in_fields(segmenter, component, whole, same)
    one_piece = match_instances(whole.truth, result.labels)
    fields = match_instances(truth, labels)
    row: dict[str, Any] = {
        "pixels": f"{whole.truth.shape[0]} x {whole.truth.shape[1]}",
        "annotated": int(whole.truth.max()),
        "found": int(result.labels.max()),
        "diameter": round(result.diameter, 1),
        "seconds": round(seconds, 1),
    }
    for one, other in zip(one_piece, fields, strict=True):
        row[f"AP@{one.threshold:g}"] = round(one.average_precision, 4)
        row[f"AP@{one.threshold:g} in fields"] = round(other.average_precision, 4)
    return row


def peak_memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Segment an image of one area in this process and return its memory."""
    edge = int((arguments.measure * 1e6) ** 0.5) // 16 * 16
    pixels = mosaic().image.pixels
    repeats = -(-edge // min(pixels.shape[:2]))
    image = Image(pixels=np.tile(pixels, (repeats, repeats, 1))[:edge, :edge].copy(), sha256="area")
    component = resolve(arguments.model, arguments.device)
    options = SegmentationOptions(diameter=arguments.diameter)
    with open_segmenter(open_device(arguments.device), flow_cache_mb=1) as segmenter:
        segmenter.warm(component)
        small = Image(pixels=cv2.resize(image.pixels, (256, 256))[..., None], sha256="small")
        segmenter.segment(small, options, component=component, priority=Priority.BATCH)
        before = forget_peak()
        started = time.perf_counter()
        result = segmenter.segment(image, options, component=component, priority=Priority.BATCH)
        seconds = time.perf_counter() - started
    extra = peak_mb() - before
    return {
        "megapixels": round(edge * edge / 1e6, 2),
        "objects": int(result.labels.max(initial=0)),
        "seconds": round(seconds, 1),
        "peak MB": round(peak_mb()),
        "extra MB": round(extra),
        "extra bytes / pixel": round(extra * 1e6 / edge**2),
        "times floor": round(extra * 1e6 / edge**2 / FLOOR_BYTES, 1),
    }


def forget_peak() -> float:
    """Let the peak start anew where the system can (Linux); return the memory held now, in MB."""
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return peak_mb()
    return _status_mb("VmRSS")


def peak_mb() -> float:
    """Return the most memory that this process held since `forget_peak`, in MB."""
    try:
        return _status_mb("VmHWM")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1e6 if sys.platform == "darwin" else 1e3)


def _status_mb(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return float(line.split()[1]) / 1e3
    raise OSError(f"/proc/self/status does not say {name}")


def resolve(model: str, device: str) -> Component:
    """Return the network to use."""
    return resolve_component(
        model,
        models_dir=read_settings().cellpose_models_dir,
        cuda=open_device(device).type == "cuda",
    )


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print a table."""
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console(width=160).print(table)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--diameter", type=float, default=None)
    parser.add_argument("--megapixels", type=float, nargs="*", default=[2, 4, 8, 16])
    parser.add_argument("--no-seams", action="store_true")
    parser.add_argument("--measure", type=float, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(peak_memory(arguments)))
        return
    report: dict[str, Any] = {"model": arguments.model}
    if arguments.megapixels:
        report["memory"] = [child(sys.argv[1:], area) for area in arguments.megapixels]
        show("Memory", report["memory"])
    if not arguments.no_seams:
        component = resolve(arguments.model, arguments.device)
        report["seams"] = seams(component, arguments.device, arguments.diameter)
        show("Seams", [report["seams"]])
    print(json.dumps(report))


def child(options: list[str], area: float) -> dict[str, Any]:
    """Return the memory that one area takes, measured in a process of its own."""
    command = [sys.executable, __file__, *options, "--measure", str(area)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


if __name__ == "__main__":
    main()
