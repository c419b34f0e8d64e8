"""What the device's thread tells of its batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from ml_backend.domain import Priority
from ml_backend.engines.batching import DeviceThread
from ml_backend.engines.device_memory import memory_bytes
from ml_backend.engines.served_network import ServedNetwork
from ml_backend.errors import EngineError
from tests.unit.engines.conftest import Doubling, served


@dataclass
class Notes:
    """Notes what it is told."""

    ran_: list[tuple[int, int]] = field(default_factory=list)  # tiles, images
    seconds: list[float] = field(default_factory=list)
    failed_: list[bool] = field(default_factory=list)  # for want of memory

    def ran(self, *, tiles: int, images: int, seconds: float) -> None:
        """Note a batch that was answered."""
        self.ran_.append((tiles, images))
        self.seconds.append(seconds)

    def failed(self, *, out_of_memory: bool) -> None:
        """Note one that was not."""
        self.failed_.append(out_of_memory)


class Batched(ServedNetwork):
    """A network that takes four tiles at once."""

    def batch_for(self, tile_yx: tuple[int, int]) -> int:
        """Return 4."""
        return 4


@pytest.fixture
def notes() -> Notes:
    """Return what was told."""
    return Notes()


@pytest.fixture
def thread(notes: Notes) -> Iterator[DeviceThread]:
    """Yield a device's thread that is observed."""
    with DeviceThread(torch.device("cpu"), observer=notes) as opened:
        yield opened


def run(thread: DeviceThread, module: Doubling, count: int) -> list[float]:
    """Return the answers to tiles 0, 1, 2, ..."""
    base = served(module)
    network = Batched(**{name: getattr(base, name) for name in base.__dataclass_fields__})
    answers = thread.run_tiles(
        network,
        lambda index: np.full((1, 4, 4), index, np.float32),
        count,
        (4, 4),
        priority=Priority.BATCH,
    )
    return [float(answer[0, 0, 0]) for _, answer in sorted(answers, key=lambda pair: pair[0])]


def test_every_batch_is_told_with_its_size(thread: DeviceThread, notes: Notes) -> None:
    assert run(thread, Doubling(), 6) == [0, 2, 4, 6, 8, 10]
    thread.close()

    assert notes.ran_ == [(4, 1), (2, 1)]
    assert all(0 <= seconds < 60 for seconds in notes.seconds)
    assert notes.failed_ == []


def test_a_batch_that_does_not_fit_is_told_and_its_halves_as_well(
    thread: DeviceThread, notes: Notes
) -> None:
    run(thread, Doubling(largest_batch=2), 4)
    thread.close()

    assert notes.failed_ == [True]
    assert notes.ran_ == [(2, 1), (2, 1)]


def test_a_batch_that_fails_is_told(thread: DeviceThread, notes: Notes) -> None:
    with pytest.raises(EngineError):
        run(thread, Doubling(poison=1.0), 2)

    assert (notes.failed_, notes.ran_) == ([False], [])


def test_a_device_without_memory_of_its_own_has_none_to_tell_of() -> None:
    assert memory_bytes(torch.device("cpu")) == {}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_tells_of_its_memory() -> None:
    device = torch.device("cuda:0")
    kept = torch.zeros(1_000_000, device=device)

    found = memory_bytes(device)

    assert found["total"] >= found["free"] > 0
    assert found["reserved"] >= found["allocated"] >= kept.nbytes
