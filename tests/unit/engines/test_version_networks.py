"""Trained versions: from a folder to a network that was tried, and the size it was trained on."""

from __future__ import annotations

import gc
import json
import os
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ml_backend.domain import Priority, SegmentationOptions
from ml_backend.engines.batching import DeviceThread
from ml_backend.engines.catalogue import (
    MANIFEST_FILE,
    component_of_version,
    resolve_component,
    verify_component,
)
from ml_backend.engines.cellpose import CellposeSegmenter, open_segmenter
from ml_backend.engines.network_store import NetworkStore
from ml_backend.engines.residual_unet import ResidualUNet
from ml_backend.errors import CheckpointInvalid, ModelNotFound
from tests.differing_networks import make_version
from tests.unit.engines.conftest import SaveTiny, discs

CPU = torch.device("cpu")


@pytest.fixture
def segmenter() -> Iterator[CellposeSegmenter]:
    with open_segmenter(CPU) as opened:
        yield opened


def test_a_version_folder_says_name_licence_and_size(tmp_path: Path) -> None:
    made = make_version(tmp_path, "nuclei-1-p3-v2", bias=0.5, diameter=31.5)

    read = component_of_version(tmp_path / "nuclei-1-p3-v2")
    asked = resolve_component(str(tmp_path / "nuclei-1-p3-v2"), models_dir=tmp_path, cuda=False)

    assert read == asked == made
    assert (read.name, read.licence, read.diameter) == ("nuclei-1-p3-v2", "CC0-1.0", 31.5)


@pytest.mark.parametrize("diameter", ["30", 0, -1, float("nan"), True])
def test_a_size_that_is_none_is_refused(tmp_path: Path, diameter: object) -> None:
    make_version(tmp_path, "one", bias=0.0)
    manifest = tmp_path / "one" / MANIFEST_FILE
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "diameter": diameter}))

    with pytest.raises(CheckpointInvalid, match="diameter"):
        component_of_version(tmp_path / "one")


def test_objects_are_looked_for_at_the_size_that_was_trained_on(
    tmp_path: Path, segmenter: CellposeSegmenter
) -> None:
    image, _ = discs(30.0, 4, 160)
    small, large = (
        make_version(tmp_path, name, bias=0.0, diameter=diameter)
        for name, diameter in (("small", 15.0), ("large", 30.0))
    )

    found = {
        component.name: segmenter.segment(
            image, SegmentationOptions(), component=component, priority=Priority.BATCH
        )
        for component in (small, large)
    }
    told = segmenter.segment(
        image, SegmentationOptions(diameter=20.0), component=small, priority=Priority.BATCH
    )

    assert (found["small"].diameter, found["large"].diameter) == (15.0, 30.0)
    assert int(found["large"].labels.max()) == 4
    assert told.diameter == 20.0  # a person's word counts more


def test_flows_of_a_network_are_let_go_of_with_it(tmp_path: Path, save_tiny: SaveTiny) -> None:
    store = NetworkStore(DeviceThread(CPU), max_networks=1)
    sizes = []
    with CellposeSegmenter(store) as segmenter:
        for seed, name in enumerate(("one", "two", "three"), start=1):
            segmenter.segment(
                discs(30.0, 4, 160)[0],
                SegmentationOptions(diameter=30.0),
                component=save_tiny(name, seed),
                priority=Priority.BATCH,
            )
            sizes.append(segmenter.kept_bytes)

    assert sizes[0] > 0
    assert sizes == [sizes[0]] * 3


def test_damage_that_changes_neither_size_nor_time_is_found(tmp_path: Path) -> None:
    component = make_version(tmp_path, "one", bias=0.0)
    verify_component(component)
    path = Path(component.path)
    facts = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    with pytest.raises(CheckpointInvalid, match="checksum"):
        verify_component(component)


def test_a_version_whose_file_is_gone_is_not_served(
    tmp_path: Path, segmenter: CellposeSegmenter
) -> None:
    component = make_version(tmp_path, "one", bias=0.0)
    Path(component.path).unlink()

    with pytest.raises(ModelNotFound):
        segmenter.warm(component)


class Exploding(ResidualUNet):
    """Has finite weights and no finite answers."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        flows, style = super().forward(x)
        return flows / 0.0, style


def test_a_network_without_finite_answers_is_refused(save_tiny: SaveTiny) -> None:
    component = save_tiny()
    store = NetworkStore(DeviceThread(CPU), load=lambda _: Exploding().eval())

    with pytest.raises(CheckpointInvalid, match="not finite"):
        store.prove(component, priority=Priority.BACKGROUND)

    store.close()


def test_a_displaced_network_is_let_go_of_after_its_last_request(save_tiny: SaveTiny) -> None:
    store = NetworkStore(DeviceThread(CPU), max_networks=2)
    in_use = store.get(save_tiny("one", 1), priority=Priority.BATCH)
    watched = weakref.ref(in_use.network)
    for seed, name in enumerate(("two", "three"), start=2):
        store.prove(save_tiny(name, seed), priority=Priority.BACKGROUND)

    still_there = watched() is not None
    answer = in_use.run(torch.zeros(1, 3, 32, 32))
    del in_use
    gc.collect()

    assert store.names() == ["two", "three"]
    assert still_there
    assert answer.shape == (1, 3, 32, 32)
    assert watched() is None
    store.close()
