"""Train the built-in network from a folder of images and masks, within a time budget.

    PYTHONPATH=. python tools/train_builtin_network.py --data DATA --minutes 100 --out runs/1

The learning rate follows the elapsed time, so a slow machine makes fewer steps, not a worse end.
Started again with the same `--out`, it continues from its last checkpoint. Started by `torchrun`,
its processes share each step; on a busy CPU one process per core beats one with many threads.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from dataclasses import replace
from pathlib import Path

import torch
from builtin_checkpoint import load_checkpoint, save_checkpoint, save_weights
from builtin_data import CropLoader, load_samples, split
from builtin_optimiser import WeightAverage, optimisers
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from ml_backend.engines.residual_unet import ResidualUNet, ResidualUNetConfig

WARM_UP = 0.02  # share of the time
FLAT_UNTIL = 0.4  # then the learning rate falls linearly to zero


def parse_arguments() -> argparse.Namespace:
    """The command line; defaults are what the shipped weights were made with."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder with images/ and masks/")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and log")
    parser.add_argument("--minutes", type=float, default=100.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=8, help="crops per step")
    parser.add_argument("--crop", type=int, default=128, help="edge of a crop in pixels")
    parser.add_argument("--lr", type=float, default=0.04, help="Muon's learning rate")
    parser.add_argument("--adam-lr", type=float, default=0.003)
    parser.add_argument("--ema", type=float, default=0.998, help="decay of the averaged weights")
    parser.add_argument("--validation", type=float, default=0.06, help="share kept out, per kind")
    parser.add_argument("--diameter", type=float, default=22.0, help="object diameter in pixels")
    parser.add_argument("--cache", type=Path, help="folder for computed flows; default: OUT/flows")
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0: torch's default")
    return parser.parse_args()


def learning_rate_factor(progress: float) -> float:
    """progress: 0..1 of the time -> factor of the learning rates."""
    if progress < WARM_UP:
        return max(progress / WARM_UP, 0.02)
    return min(1.0, max(0.0, (1.0 - progress) / (1.0 - FLAT_UNTIL)))


def loss_terms(y: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Cellpose's two losses, weighted per pixel: flows (mean squared error / 2), probability.

    y: (N, 3, Y, X); target: (N, 4, Y, X) = Y-flow, X-flow, inside, weight.
    """
    weight = target[:, 3]
    total = weight.sum().clamp(min=1.0)
    flow = ((y[:, :2] - 5.0 * target[:, :2]) ** 2).mean(dim=1)
    inside = F.binary_cross_entropy_with_logits(y[:, 2], target[:, 2], reduction="none")
    return (flow * weight).sum() / total / 2, (inside * weight).sum() / total


def share_gradients(net: ResidualUNet, elapsed: float) -> float:
    """Average the gradients over all processes, and the elapsed seconds: they end together."""
    if not distributed.is_initialized():
        return elapsed
    gradients = [weight.grad for weight in net.parameters() if weight.grad is not None]
    clock = gradients[0].new_tensor([elapsed])
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), clock])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()
    return float(flat[-1])


def main() -> None:
    """Train until the time is used up."""
    options = parse_arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    rank = 0
    if "RANK" in os.environ:
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        rank = distributed.get_rank()
    torch.manual_seed(options.seed)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
    samples = load_samples(options.data, options.diameter, options.cache or options.out / "flows")
    training, validation = split(samples, options.validation)
    (options.out / "validation.json").write_text(json.dumps([s.stem for s in validation], indent=1))
    config = replace(ResidualUNetConfig(), diam_mean=options.diameter)
    net = ResidualUNet(config).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = WeightAverage(net, options.ema)
    steppers = optimisers(net, options.lr, options.adam_lr)
    base_rates = [[group["lr"] for group in stepper.param_groups] for stepper in steppers]
    checkpoint = options.out / "checkpoint.safetensors"
    nets: dict[str, nn.Module] = {"net": net, "average": average.net}
    step, before = 0, 0.0
    if checkpoint.exists():
        step, before = load_checkpoint(checkpoint, nets, steppers)
    elapsed = before
    loader = CropLoader(
        training,
        options.batch,
        options.crop,
        options.diameter,
        options.seed + step + 1_000_003 * rank,
        threads=1,
    )
    parameters = sum(p.numel() for p in net.parameters())
    print(f"{len(training)} + {len(validation)} images, {parameters} parameters", flush=True)
    start = time.monotonic()
    report_at, save_at, first = start, start + 60.0, step
    flow_mean = inside_mean = 0.0
    for images, target in loader:
        now = time.monotonic()
        progress = elapsed / (60.0 * options.minutes)
        finished = progress >= 1.0
        if rank == 0 and (finished or now >= save_at):
            save_checkpoint(checkpoint, nets, steppers, step=step, elapsed_s=elapsed)
            save_weights(options.out / "average.safetensors", average.net)
            save_at = now + 60.0
        if finished:
            break
        factor = learning_rate_factor(progress)
        for stepper, rates in zip(steppers, base_rates, strict=True):
            for group, rate in zip(stepper.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        net.train()
        images = images.to(device).to(memory_format=torch.channels_last)
        target = target.to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            y = net(images)[0]
        flow, inside = loss_terms(y.float(), target)
        loss = flow + inside
        if not math.isfinite(loss.item()):
            raise RuntimeError(f"the loss is not finite at step {step}")
        for stepper in steppers:
            stepper.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        elapsed = share_gradients(net, before + time.monotonic() - start)
        for stepper in steppers:
            stepper.step()
        step += 1
        average.update(net, step)
        keep = min(0.99, 1 - 1 / (step - first))
        flow_mean = keep * flow_mean + (1 - keep) * flow.item()
        inside_mean = keep * inside_mean + (1 - keep) * inside.item()
        if rank == 0 and now >= report_at:
            pace = (time.monotonic() - start) / (step - first)
            print(
                f"{progress:6.1%}  step {step:6d}  flow {flow_mean:.4f}  inside {inside_mean:.4f}"
                f"  rate x{factor:.3f}  {pace:.3f} s/step",
                flush=True,
            )
            report_at = now + 20.0


if __name__ == "__main__":
    main()
