"""Average precision of a network on annotated images, no diameter given.

    python benchmarks/accuracy.py [--model auto] [--sets dsb2018_fluo ...] [--markdown FILE]

Average precision is Cellpose's: TP / (TP + FP + FN) at an IoU threshold, the mean over images.
`floor` is what Otsu's threshold and a watershed reach as F1 at IoU 0.5 where that is known;
`count` is objects found / annotated; `diameter` the median of estimated / annotated diameter.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from image_sets import Annotated, read_set, set_names
from rich.console import Console
from rich.table import Table

from ml_backend.domain import Component, Priority, SegmentationOptions
from ml_backend.engines.catalogue import resolve_component
from ml_backend.engines.cellpose import CellposeSegmenter, open_segmenter
from ml_backend.engines.device_profile import open_device
from ml_backend.engines.scale import median_diameter
from ml_backend.imaging.matching import match_instances
from ml_backend.settings import read_settings

THRESHOLDS = (0.5, 0.75, 0.9)
# F1 at IoU 0.5 of Otsu's threshold and a watershed, from the data's own description
CLASSICAL_F1 = {
    "dsb2018_fluo": 0.58,
    "dsb2018_histology": 0.68,
    "dsb2018_brightfield": 0.05,
    "bbbc039_nuclei16": 0.90,
    "usiigaci_phase": 0.01,
}
SETS = (*CLASSICAL_F1, "plantseg_membrane")


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """The result on one image."""

    precision: tuple[float, ...]  # AP per threshold
    f1: float  # at IoU 0.5
    found: int
    annotated: int
    diameter_ratio: float  # estimated / annotated
    seconds: float


def measure(
    segmenter: CellposeSegmenter,
    component: Component,
    sample: Annotated,
    options: SegmentationOptions,
) -> Accuracy:
    """Return how well the segmenter does on one image."""
    started = time.perf_counter()
    result = segmenter.segment(sample.image, options, component=component, priority=Priority.BATCH)
    seconds = time.perf_counter() - started
    matchings = match_instances(sample.truth, result.labels, thresholds=THRESHOLDS)
    annotated = median_diameter(sample.truth)
    return Accuracy(
        precision=tuple(matching.average_precision for matching in matchings),
        f1=matchings[0].f1,
        found=int(result.labels.max(initial=0)),
        annotated=int(sample.truth.max(initial=0)),
        diameter_ratio=result.diameter / annotated if annotated else 0.0,
        seconds=seconds,
    )


def summary(name: str, results: list[Accuracy]) -> dict[str, object]:
    """Return the means over the images of one set."""
    row: dict[str, object] = {"set": name, "images": len(results)}
    for index, threshold in enumerate(THRESHOLDS):
        row[f"AP@{threshold:g}"] = round(statistics.mean(r.precision[index] for r in results), 3)
    row["F1@0.5"] = round(statistics.mean(r.f1 for r in results), 3)
    row["floor F1"] = CLASSICAL_F1.get(name, "")
    row["count"] = f"{sum(r.found for r in results)}/{sum(r.annotated for r in results)}"
    row["diameter"] = round(statistics.median(r.diameter_ratio for r in results), 2)
    row["s/image"] = round(statistics.mean(r.seconds for r in results), 2)
    return row


def to_markdown(rows: list[dict[str, object]], title: str) -> str:
    """Return the table in Markdown."""
    lines = [f"{title}\n", "| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="auto", help="a name or the path of a checkpoint")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--sets", nargs="+", default=None, help=f"default: {' '.join(SETS)}")
    parser.add_argument("--limit", type=int, default=None, help="images per set")
    parser.add_argument("--given", action="store_true", help="give the annotated diameter")
    parser.add_argument("--markdown", type=Path, default=None, help="also write the table there")
    parser.add_argument("--each", action="store_true", help="print every image")
    arguments = parser.parse_args()
    if not set_names():
        raise SystemExit("../shared/data is not here: there is nothing to measure accuracy on.")
    device = open_device(arguments.device)
    component = resolve_component(
        arguments.model,
        models_dir=read_settings().cellpose_models_dir,
        cuda=device.type == "cuda",
    )
    rows = []
    with open_segmenter(device, flow_cache_mb=1) as segmenter:
        profile = segmenter.warm(component)
        for name in arguments.sets or SETS:
            results = []
            for sample in read_set(name, arguments.limit):
                given = median_diameter(sample.truth) if arguments.given else None
                result = measure(segmenter, component, sample, SegmentationOptions(diameter=given))
                results.append(result)
                if arguments.each:
                    print(name, sample.name, result)
            rows.append(summary(name, results))
    table = Table(*rows[0], title=f"{component.name} ({component.sha256[:12]})")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)
    print(
        json.dumps(
            {
                "model": component.name,
                "sha256": component.sha256,
                "sets": rows,
                "device": profile.sentence(),
                "diameter_given": arguments.given,
            }
        )
    )
    if arguments.markdown:
        title = f"`{component.name}` ({component.sha256[:12]}), {profile.device_name}"
        arguments.markdown.write_text(to_markdown(rows, title), encoding="utf-8")


if __name__ == "__main__":
    main()
