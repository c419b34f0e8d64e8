"""Networks on a device: a bounded number, loaded once, measured once per architecture."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ml_backend.domain import Component, Priority
from ml_backend.engines.batching import DeviceThread
from ml_backend.engines.device_profile import (
    Precision,
    candidate_precisions,
    measure,
    open_device,
)
from ml_backend.engines.network_store import NetworkStore, load_on_cpu
from ml_backend.errors import CheckpointInvalid, EngineError
from tests.unit.engines.conftest import SaveTiny

CPU = torch.device("cpu")


class CountingLoad:
    """Loads networks and notes which."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def __call__(self, component: Component) -> nn.Module:
        self.loaded.append(component.name)
        return load_on_cpu(component)


@pytest.fixture
def load() -> CountingLoad:
    return CountingLoad()


@pytest.fixture
def store(load: CountingLoad) -> Iterator[NetworkStore]:
    store = NetworkStore(DeviceThread(CPU), max_networks=2, load=load)
    yield store
    store.close()


def test_a_network_is_loaded_once(
    store: NetworkStore, load: CountingLoad, save_tiny: SaveTiny
) -> None:
    component = save_tiny()

    first = store.get(component, priority=Priority.BATCH)
    again = store.get(component, priority=Priority.BATCH)

    assert first is again
    assert load.loaded == ["tiny"]


def test_eight_threads_load_a_network_once(
    store: NetworkStore, load: CountingLoad, save_tiny: SaveTiny
) -> None:
    component = save_tiny()

    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: store.get(component, priority=Priority.BATCH), range(8)))

    assert len({id(served) for served in got}) == 1
    assert load.loaded == ["tiny"]


def test_the_least_recently_used_network_makes_room(
    store: NetworkStore, load: CountingLoad, save_tiny: SaveTiny
) -> None:
    one, two, three = (save_tiny(name, seed) for seed, name in enumerate(["one", "two", "three"]))
    for component in (one, two, one, three):
        store.get(component, priority=Priority.BATCH)

    names = store.names()
    store.get(two, priority=Priority.BATCH)

    assert names == ["one", "three"]
    assert load.loaded == ["one", "two", "three", "two"]


def test_a_second_network_of_an_architecture_is_not_measured_again(
    store: NetworkStore, save_tiny: SaveTiny
) -> None:
    first = store.get(save_tiny("one", 1), priority=Priority.BATCH)

    second = store.get(save_tiny("two", 2), priority=Priority.BATCH)

    assert second.profile is first.profile
    assert second.network is not first.network


def test_a_network_that_cannot_be_loaded_can_be_asked_for_again(
    store: NetworkStore, save_tiny: SaveTiny
) -> None:
    component = save_tiny()
    path = Path(component.path)
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    with pytest.raises(CheckpointInvalid):
        store.get(component, priority=Priority.BATCH)

    path.write_bytes(good)

    assert store.get(component, priority=Priority.BATCH).component == component


class Rounding(nn.Module):
    """Is right in float32 only."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        wrong = 1.0 if self.weight.dtype == torch.float32 else 1.5
        return x * self.weight * wrong, x


def test_a_precision_that_disagrees_with_float32_is_not_chosen() -> None:
    precision, profile = measure(Rounding(), CPU, torch.rand(2, 3, 16, 16), convolutional=False)

    assert precision == Precision(dtype=torch.float32, channels_last=False)
    assert profile.disagreement["bfloat16"] > 0.4
    assert set(profile.tile_ms) == {"float32", "bfloat16"}
    assert "float32" in profile.sentence()


def test_the_memory_layout_is_measured_for_convolutions_only() -> None:
    convolutional = candidate_precisions(CPU, convolutional=True)
    transformer = candidate_precisions(CPU, convolutional=False)

    assert any(candidate.channels_last for candidate in convolutional)
    assert not any(candidate.channels_last for candidate in transformer)


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "tpu", "meta"])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(EngineError, match=name):
        open_device(name)


def test_the_cpu_is_always_there() -> None:
    assert open_device("cpu") == CPU


def test_who_keeps_something_for_a_network_hears_when_it_is_displaced(
    store: NetworkStore, save_tiny: SaveTiny
) -> None:
    displaced: list[str] = []
    store.when_displaced(lambda component: displaced.append(component.name))

    for seed, name in enumerate(("one", "two", "three", "four"), start=1):
        store.get(save_tiny(name, seed), priority=Priority.BATCH)

    assert displaced == ["one", "two"]
