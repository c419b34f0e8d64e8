"""A hundred swaps while people predict: what they feel of it, and whether anything mixes.

    python benchmarks/swaps.py [--swaps 100] [--clients 4] [--seconds 60] [--every 1.0]

Starts `ml-backend serve` with a fresh data folder and keeps `--clients` prediction requests open
all the time, each of one task with an image that was never seen. In turns, so that whatever else
the machine does is felt by both: without swaps, `--seconds` in all; and while versions are
activated one after the other, `--swaps` in all, a new one every `--every` seconds at the earliest.
The networks answer so differently that an answer tells which kind made it: the built-in one finds
whole cells, one of its shifted kin the cores of them, the other nothing. Each version has weights
of its own, so each swap loads a network and the bounded store lets one go.

Prints failed requests, answers whose version is not of the network that made them, p50 and p99
with and without swaps, their ratio, and the engine's memory at the start (after as many networks
as it may hold) and at the end, as a table and as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.running_backend import running_backend
from tests.swap_clients import Answered, Backend, Clients, make_network, mixed_up, set_up

SETTINGS = {
    "LOG_LEVEL": "WARNING",
    "FLOW_CACHE_MB": "8",  # full before anything is measured: memory is then that of networks
}


def percentile(values: list[float], share: float) -> float:
    """Return that percentile in milliseconds."""
    return float(np.percentile(values, share)) * 1000 if values else float("nan")


def measure(backend: Backend, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return all the numbers."""
    networks = [
        make_network(folder, number) for number in range(arguments.swaps + arguments.before)
    ]
    made_by: dict[str, str] = {}
    with Clients(backend.running.url, arguments.clients) as clients:
        for kind, component in networks[: arguments.before]:  # as many as the engine may hold
            made_by[backend.swap(component)] = kind
        time.sleep(arguments.settle)
        first = clients.take()
        memory_before = backend.memory_mb()
        quiet, swapped = Answered(), Answered()
        swapping_s = 0.0
        for number in range(arguments.rounds):  # in turns: whatever else the machine does counts
            time.sleep(arguments.seconds / arguments.rounds)  # for both
            quiet.take_in(clients.take())
            started = time.monotonic()
            for kind, component in networks[arguments.before + number :: arguments.rounds]:
                asked = time.monotonic()
                made_by[backend.swap(component)] = kind
                time.sleep(max(0.0, arguments.every - (time.monotonic() - asked)))
            swapping_s += time.monotonic() - started
            swapped.take_in(clients.take())
        time.sleep(arguments.settle)
        memory_after = backend.memory_mb()
        last = clients.take()
    every = (first, quiet, swapped, last)
    return {
        "swaps": arguments.swaps,
        "swaps_per_minute": round(60 * arguments.swaps / swapping_s, 1),
        "clients": arguments.clients,
        "answers": sum(len(answered.seconds) for answered in every),
        "answers_during_swaps": len(swapped.seconds),
        "versions_seen_during_swaps": len(swapped.kinds),
        "failed": sum(len(answered.failed) for answered in every),
        "failures": [reason for answered in every for reason in answered.failed][:5],
        "mixed": mixed_up(made_by, *every),
        "p50_ms": round(percentile(quiet.seconds, 50), 1),
        "p99_ms": round(percentile(quiet.seconds, 99), 1),
        "swapping_p50_ms": round(percentile(swapped.seconds, 50), 1),
        "swapping_p99_ms": round(percentile(swapped.seconds, 99), 1),
        "p99_ratio": round(percentile(swapped.seconds, 99) / percentile(quiet.seconds, 99), 3),
        "memory_before_mb": round(memory_before, 1),
        "memory_after_mb": round(memory_after, 1),
    }


def main() -> int:
    """Run it; return 1 when a request failed or an answer was another network's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60.0, help="measured without swaps")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two swaps")
    parser.add_argument("--rounds", type=int, default=4, help="without and with swaps, in turns")
    parser.add_argument("--before", type=int, default=4, help="swaps before anything is measured")
    parser.add_argument("--settle", type=float, default=10.0, help="seconds before memory is read")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        running_backend(Path(name), SETTINGS) as running,
    ):
        running.wait_until_up()
        numbers = measure(set_up(running), Path(name) / "versions", arguments)
    table = Table("what", "value")
    for what, value in numbers.items():
        table.add_row(what, str(value))
    Console(stderr=True).print(table)
    sys.stdout.write(json.dumps(numbers) + "\n")
    return 1 if numbers["failed"] or numbers["mixed"] or not numbers["answers"] else 0


if __name__ == "__main__":
    sys.exit(main())
