"""The same network and images through stock Cellpose and through our engine, in one process.

    python benchmarks/predict.py [--model auto] [--edges 512 1024] [--images 8]
    python benchmarks/predict.py --model cpsam-random --edges 512 --images 32    # a GPU

Stock is `CellposeModel.eval` at its own defaults (bfloat16, 256 px tiles, batches of 8) on a list
of images, with the diameter that makes it resize them as we do. Ours is asked from as many threads
as `--callers`, as requests come. Both start warm; the times are the smallest of `--repeat` rounds,
stock and ours in turn, so that other load on the machine hits both.

`cpsam-random` is the cpsam architecture with random weights: the network's work is real, and both
sides then post-process the same flows, made from the ground truth.

`agreement` is the average precision at IoU 0.5 of our masks against stock's. `floor` is the
network's floating point operations for the image's own pixels (no overlap, no padding, nothing
after the network) over what a matrix product reaches here in the same number format:

    built-in network  231 kFLOP per pixel, in the network frame
    cpsam             10.5 MFLOP per pixel (2 x 305 M parameters x 1024 tokens per 65 536 pixels,
                      and 24 attentions over 1024 tokens)

It moves about 1.5 kB per pixel through memory (sixteen-bit activations, written and read once per
layer), which on a CPU is the smaller part.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from cellpose import dynamics
from image_sets import Annotated, nuclei
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ml_backend.domain import Component, Priority, SegmentationOptions
from ml_backend.engines.batching import DeviceThread
from ml_backend.engines.catalogue import SAM_VITL, resolve_component
from ml_backend.engines.cellpose import CellposeSegmenter
from ml_backend.engines.device_profile import open_device
from ml_backend.engines.flow_cache import FlowField
from ml_backend.engines.network_store import NetworkStore
from ml_backend.engines.networks import StockModel, load_network, move_network
from ml_backend.engines.scale import median_diameter
from ml_backend.engines.served_network import ServedNetwork, traits_of
from ml_backend.imaging.matching import match_instances
from ml_backend.settings import read_settings

RANDOM_CPSAM = "cpsam-random"
STOCK_DIAMETER = 30.0  # CellposeModel.eval resizes objects to it
LabelImages = list[npt.NDArray[np.int32]]


class StockWithFlows(StockModel):
    """Stock Cellpose that does the network's work and goes on with given flows."""

    given: list[npt.NDArray[np.float32]]  # (3, Y, X) per image, in the order of the list

    def _run_net(self, x: Any, **options: Any) -> tuple[Any, Any, Any]:
        _, _, styles = super()._run_net(x, **options)
        flows = self.given[self.position % len(self.given)]
        self.position += 1
        return flows[:2, None], flows[2, None], styles

    position = 0


class OursWithFlows(CellposeSegmenter):
    """Our engine that does the network's work and goes on with given flows."""

    given: dict[str, npt.NDArray[np.float32]]  # (3, Y, X) by the image's name

    def compute_field(self, image: Any, *arguments: Any) -> FlowField:
        """Return the given flows after the network has run."""
        field = super().compute_field(image, *arguments)
        flows = self.given[image.sha256.rsplit("#", 1)[0]]
        return dataclasses.replace(field, flows=flows[:2], cell_probability=flows[2])


def true_flows(sample: Annotated) -> npt.NDArray[np.float32]:
    """Return (3, Y, X): the flows that a perfect network would answer, and logits of +-6."""
    flows = dynamics.labels_to_flows([sample.truth], device=torch.device("cpu"))[0][-2:]
    inside = np.where(sample.truth > 0, 6.0, -6.0)[None]
    return np.concatenate([5 * flows, inside]).astype(np.float32)


def load(name: str, device: torch.device) -> tuple[Component, Callable[[], nn.Module]]:
    """Return the component and a function that makes its float32 network on the CPU."""
    if name == RANDOM_CPSAM:
        from cellpose.vit import CPSAM  # only this choice needs it

        torch.manual_seed(0)
        network = CPSAM().eval().requires_grad_(False)
        component = Component(
            name=name, architecture=SAM_VITL, sha256="0" * 64, path="", licence="none"
        )
        state = network.state_dict()

        def again() -> nn.Module:
            with torch.device("meta"):
                copy = CPSAM()
            copy.load_state_dict(state, assign=True)
            return copy.eval().requires_grad_(False)

        return component, again
    component = resolve_component(
        name, models_dir=read_settings().cellpose_models_dir, cuda=device.type == "cuda"
    )
    return component, lambda: load_network(component, torch.device("cpu"))


def stock_round(model: StockModel, samples: list[Annotated], diameter: float | None) -> LabelImages:
    """Return stock's label images."""
    images = [_three_channels(sample.image.pixels, model) for sample in samples]
    masks = model.eval(images, diameter=diameter)[0]
    return [np.asarray(mask).astype(np.int32) for mask in masks]


def _three_channels(pixels: npt.NDArray[Any], model: StockModel) -> npt.NDArray[Any]:
    repeat = traits_of(model.net, "").repeat_gray and pixels.shape[2] == 1
    return np.repeat(pixels, 3, axis=2) if repeat else pixels


def our_round(
    segmenter: CellposeSegmenter,
    component: Component,
    samples: list[Annotated],
    diameter: float | None,
    callers: int,
    turn: int,
) -> LabelImages:
    """Return our label images; `turn` keeps the cache of flows out of it."""

    def one(sample: Annotated) -> npt.NDArray[np.int32]:
        image = dataclasses.replace(sample.image, sha256=f"{sample.name}#{turn}")
        options = SegmentationOptions(diameter=diameter)
        return segmenter.segment(
            image, options, component=component, priority=Priority.BATCH
        ).labels

    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(one, samples))


def timed(function: Callable[[], LabelImages]) -> tuple[LabelImages, float, float]:
    """Return the label images, wall seconds and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    labels = function()
    return labels, time.perf_counter() - wall, time.process_time() - processor


def floor_seconds(served: ServedNetwork, pixels: float) -> float:
    """Return the seconds that the network's arithmetic takes at a matrix product's speed."""
    edge = served.traits.tile or 256
    tiles = torch.zeros(1, 3, edge, edge)
    with FlopCounterMode(display=False) as counter:
        served.run(tiles)
    per_pixel = counter.get_total_flops() / edge**2
    return per_pixel * pixels / matrix_product_flops(served.device, served.precision.dtype)


def matrix_product_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Return floating point operations per second of a large matrix product."""
    size = 8192 if device.type == "cuda" else 1536
    one = torch.randn(size, size, device=device).to(dtype)
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        _ = (one @ one)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def compare(
    name: str,
    samples: list[Annotated],
    model: StockModel,
    segmenter: CellposeSegmenter,
    served: ServedNetwork,
    arguments: argparse.Namespace,
) -> dict[str, object]:
    """Return the row of one image size."""
    diameter = statistics.median(median_diameter(sample.truth) for sample in samples)
    given = diameter if served.traits.scale_bound else None
    stock_diameter = given and given * STOCK_DIAMETER / served.traits.diameter
    if isinstance(model, StockWithFlows) and isinstance(segmenter, OursWithFlows):
        model.given = [true_flows(sample) for sample in samples]
        segmenter.given = dict(zip([sample.name for sample in samples], model.given, strict=True))
    stock_times, our_times = [], []
    for turn in range(-1, arguments.repeat):
        few = samples[:1] if turn < 0 else samples  # the first round only warms up
        if isinstance(model, StockWithFlows):
            model.position = 0
        stock, *stock_time = timed(lambda few=few: stock_round(model, few, stock_diameter))
        ours, *our_time = timed(
            lambda few=few, turn=turn: our_round(
                segmenter, served.component, few, given, arguments.callers, turn
            )
        )
        if turn >= 0:
            stock_times.append(stock_time)
            our_times.append(our_time)
    agreement = [
        match_instances(a, b)[0].average_precision for a, b in zip(stock, ours, strict=True)
    ]
    scale = served.traits.diameter / given if given else 1.0
    floor = floor_seconds(served, sum(sample.truth.size for sample in samples) * scale**2)
    stock_wall, stock_cpu = (min(column) for column in zip(*stock_times, strict=True))
    our_wall, our_cpu = (min(column) for column in zip(*our_times, strict=True))
    return {
        "images": f"{len(samples)} x {name}",
        "objects": sum(int(labels.max(initial=0)) for labels in ours),
        "stock s": round(stock_wall, 3),
        "ours s": round(our_wall, 3),
        "ratio": round(stock_wall / our_wall, 2),
        "stock cpu s": round(stock_cpu, 3),
        "ours cpu s": round(our_cpu, 3),
        "cpu ratio": round(stock_cpu / our_cpu, 2),
        "ours images/s": round(len(samples) / our_wall, 2),
        "agreement": round(statistics.mean(agreement), 4),
        "floor s": round(floor, 3),
        "ours / floor": round(our_wall / floor, 2),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", "--network", default="auto", dest="model")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--edges", type=int, nargs="+", default=[512, 1024], help="pixels")
    parser.add_argument("--images", type=int, default=4, help="per image size")
    parser.add_argument("--callers", type=int, default=None, help="threads that ask our engine")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    device = open_device(arguments.device)
    arguments.callers = arguments.callers or (2 if device.type == "cpu" else 16)
    component, make_network = load(arguments.model, device)
    random = arguments.model == RANDOM_CPSAM
    stock_class, our_class = (
        (StockWithFlows, OursWithFlows) if random else (StockModel, CellposeSegmenter)
    )
    # stock's default is bfloat16 whatever the device
    stock = stock_class(move_network(make_network(), device, torch.bfloat16), device=device)
    networks = NetworkStore(DeviceThread(device), load=lambda _: make_network())
    rows = []
    with our_class(networks, flow_cache_mb=1) as segmenter:
        served = networks.get(component, priority=Priority.BATCH)
        for edge in arguments.edges:
            samples = nuclei(edge, arguments.images)
            rows.append(compare(f"{edge} x {edge}", samples, stock, segmenter, served, arguments))
    table = Table(*rows[0], title=f"{component.name}: {served.profile.sentence()}")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console(width=200).print(table)
    print(
        json.dumps(
            {
                "model": component.name,
                "precision": served.profile.precision,
                "device": served.profile.device_name,
                "sizes": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
