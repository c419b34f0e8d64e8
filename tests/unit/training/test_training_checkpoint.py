"""The state on disk: whole or not there, and refused where it does not belong."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from ml_backend.errors import CheckpointInvalid
from ml_backend.training.training_checkpoint import (
    load_checkpoint,
    read_checkpoint_state,
    save_checkpoint,
    write_tensors,
)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: a full disk, for this process alone."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def network_and_optimiser(outputs: int = 3) -> tuple[nn.Module, torch.optim.Optimizer]:
    network = nn.Sequential(nn.Linear(4, outputs), nn.BatchNorm1d(outputs))
    optimiser = torch.optim.AdamW(network.parameters())
    network(torch.rand(5, 4)).sum().backward()
    optimiser.step()
    return network, optimiser


def test_weights_averages_and_state_come_back(tmp_path: Path) -> None:
    network, optimiser = network_and_optimiser()
    save_checkpoint(tmp_path / "c.safetensors", network, optimiser, {"step": 7, "best": [0.5]})
    other, its_optimiser = network_and_optimiser()
    state = load_checkpoint(tmp_path / "c.safetensors", other, its_optimiser)
    assert state == {"step": 7, "best": [0.5]}
    assert read_checkpoint_state(tmp_path / "c.safetensors") == state
    for key, value in network.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)
    wanted, got = optimiser.state_dict()["state"], its_optimiser.state_dict()["state"]
    for index, averages in wanted.items():
        assert all(torch.equal(got[index][name], value) for name, value in averages.items())


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    write_tensors(path, {"a": torch.ones(4)}, {"state": "{}"})
    before = path.read_bytes()
    with largest_file(20_000), pytest.raises(OSError, match=r"c\.safetensors") as caught:
        write_tensors(path, {"a": torch.ones(100_000)}, {"state": "{}"})
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["c.safetensors"]


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.safetensors", *network_and_optimiser(3), {})
    with pytest.raises(CheckpointInvalid, match="another network"):
        load_checkpoint(tmp_path / "c.safetensors", *network_and_optimiser(2))


def test_where_there_is_none_there_is_no_state(tmp_path: Path) -> None:
    assert read_checkpoint_state(tmp_path / "c.safetensors") is None
    (tmp_path / "c.safetensors").write_bytes(b"half a file")
    assert read_checkpoint_state(tmp_path / "c.safetensors") is None
