"""What the formats of `infer` cost on a 4160 x 4176 image.

    python benchmarks/infer.py [--model auto] [--device auto] [--no-served]

Encoding: the image is segmented once; then the same result is written in each format. `of
segmentation` is the time of that over the time of segmenting, both in this run; `extra MB` is the
peak of the process meanwhile minus what it held before, which the label image is part of.

Served: `ml-backend serve` is started, and the image uploaded once for each format. The peaks of the
web process and the engine are those of the request alone (Linux). The image is the mosaic in
../shared/data/large, or one put together of generated fields.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import httpx
from large import forget_peak, mosaic, peak_mb, resolve, show
from latency import running_backend

from ml_backend.domain import Component, Flows, Image, Priority, Segmentation, SegmentationOptions
from ml_backend.engines.cellpose import open_segmenter
from ml_backend.engines.device_profile import open_device
from ml_backend.formats.mask_files import MaskFormat
from ml_backend.service.inference_answer import AnswerShape, Found, write_answer

URL = "/api/v1/infer"
CASES: dict[str, tuple[MaskFormat | None, bool, bool]] = {
    # format (None = JSON), nested lists, flows
    "json": (None, False, False),
    "json, nested lists": (None, True, False),
    **{kind.value: (kind, False, False) for kind in MaskFormat},
    "json with flows": (None, False, True),
    "npy with flows": (MaskFormat.NPY, False, True),
}


def encoding(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return what each format takes to be written, beside the segmentation itself."""
    component = resolve(arguments.model, arguments.device)
    whole = mosaic().image
    options = SegmentationOptions()
    with open_segmenter(open_device(arguments.device), flow_cache_mb=512) as segmenter:
        segmenter.warm(component)
        small = Image(pixels=cv2.resize(whole.pixels, (256, 256))[..., None], sha256="small")
        segmenter.segment(small, options, component=component, priority=Priority.BATCH)
        started = time.perf_counter()
        found, flows = segmenter.segment_with_flows(
            whole, options, component=component, priority=Priority.BATCH
        )
        seconds = time.perf_counter() - started
        return [encoded(name, found, flows, component, seconds=seconds) for name in CASES]


def encoded(
    name: str, found: Segmentation, flows: Flows, component: Component, *, seconds: float
) -> dict[str, Any]:
    """Return what one format takes; `seconds` is what the segmentation took."""
    kind, nested, with_flows = CASES[name]
    shape = AnswerShape(answer=kind, count=1, with_flows=with_flows, nested_lists=nested)
    one = Found(
        name="mosaic.png",
        stem="mosaic",
        segmentation=found,
        flows=flows if with_flows else None,
    )
    with tempfile.TemporaryDirectory() as work, tempfile.TemporaryFile(dir=work) as file:
        before = forget_peak()
        started = time.perf_counter()
        write_answer(file, iter([one]), shape, model=component, work=Path(work))
        taken = time.perf_counter() - started
        return {
            "format": name,
            "MB": round(file.seek(0, 2) / 1e6, 2),
            "encode s": round(taken, 2),
            "segment s": round(seconds, 1),
            "of segmentation": round(taken / seconds, 3),
            "extra MB": round(peak_mb() - before),
            "objects": len(found.scores),
        }


def served(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return what a request takes through web and engine, and their memory meanwhile."""
    picture = mosaic().image.pixels[..., 0]
    content = cv2.imencode(".png", picture)[1].tobytes()
    os.environ.update({"WORKERS": "1", "DEVICE": arguments.device})
    rows = []
    with running_backend() as url, httpx.Client(base_url=url, timeout=900) as client:
        small = cv2.imencode(".png", picture[:300, :300])[1].tobytes()
        client.post(URL, files={"images": ("small.png", small)}).raise_for_status()
        processes = _processes(url)
        for name, (kind, nested, with_flows) in CASES.items():
            fields = {
                "format": "json" if kind is None else kind.value,
                "model": arguments.model,
                "json_safe": str(nested).lower(),
                "return_flows": str(with_flows).lower(),
                # the flows of the image before are not taken from the cache
                "cellprob_threshold": "0",
                "diameter": str(25 + len(rows) / 1000),
            }
            for process in processes.values():
                Path(f"/proc/{process}/clear_refs").write_text("5")
            held = {which: _memory(process, "VmRSS") for which, process in processes.items()}
            started = time.perf_counter()
            size = 0
            files = {"images": ("mosaic.png", content)}
            with client.stream("POST", URL, files=files, data=fields) as answer:
                answer.raise_for_status()
                for piece in answer.iter_raw():
                    size += len(piece)
            rows.append(
                {
                    "format": name,
                    "MB": round(size / 1e6, 2),
                    "request s": round(time.perf_counter() - started, 1),
                    **{
                        f"{which}, extra MB": round(_memory(process, "VmHWM") - held[which])
                        for which, process in processes.items()
                    },
                    **{
                        f"{which}, peak MB": round(_memory(process, "VmHWM"))
                        for which, process in processes.items()
                    },
                }
            )
    return rows


def _processes(url: str) -> dict[str, int]:
    """Return the process that answers for the web, and the engine's."""
    port = url.rpartition(":")[2].encode()
    found: dict[str, int] = {}
    for folder in sorted(Path("/proc").iterdir(), key=lambda path: path.name.zfill(9)):
        if not folder.name.isdigit():
            continue
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if b"PORT=" + port in environment:
            for which in ("web", "engine"):
                if f" {which} " in f"{line} ":
                    found[which] = int(folder.name)  # of several the last: the worker
    return found


def _memory(process: int, name: str) -> float:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(name):
            return float(line.split()[1]) / 1e3
    return 0.0


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--no-served", action="store_true")
    arguments = parser.parse_args()
    report: dict[str, Any] = {"encoding": encoding(arguments)}
    show("Encoding", report["encoding"])
    if not arguments.no_served:
        report["served"] = served(arguments)
        show("Served", report["served"])
    print(json.dumps(report))


if __name__ == "__main__":
    main()
