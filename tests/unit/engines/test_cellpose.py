"""Images to instances with the shipped network, from many threads, whatever the image."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ml_backend.domain import Component, Image, Priority, Segmentation, SegmentationOptions
from ml_backend.engines.batching import DeviceThread
from ml_backend.engines.catalogue import SAM_VITL, resolve_component
from ml_backend.engines.cellpose import ON_CPU_NOTE, CellposeSegmenter, open_segmenter
from ml_backend.engines.network_store import NetworkStore
from ml_backend.engines.scale import median_diameter
from ml_backend.errors import OutOfMemory
from ml_backend.imaging.matching import match_instances
from tests.unit.engines.conftest import discs

CPU = torch.device("cpu")
DEFAULTS = SegmentationOptions()


@pytest.fixture(scope="module")
def component() -> Component:
    return resolve_component("auto", models_dir=Path("."), cuda=False)


@pytest.fixture(scope="module")
def networks() -> Iterator[NetworkStore]:
    """One device with the network measured once; segmenters come and go on it."""
    store = NetworkStore(DeviceThread(CPU))
    yield store
    store.close()


@pytest.fixture
def segmenter(networks: NetworkStore) -> CellposeSegmenter:
    return CellposeSegmenter(networks)


def segment(
    segmenter: CellposeSegmenter,
    component: Component,
    image: Image,
    options: SegmentationOptions = DEFAULTS,
) -> Segmentation:
    return segmenter.segment(image, options, component=component, priority=Priority.BATCH)


@pytest.mark.parametrize(("diameter", "count", "edge"), [(6, 40, 128), (22, 12, 160), (70, 6, 320)])
def test_small_and_large_discs_are_found_without_a_diameter(
    diameter: float, count: int, edge: int, segmenter: CellposeSegmenter, component: Component
) -> None:
    image, truth = discs(diameter, count, edge)

    result = segment(segmenter, component, image)

    (matching,) = match_instances(truth, result.labels, thresholds=[0.5])
    assert matching.average_precision >= 0.9
    assert result.diameter == pytest.approx(median_diameter(truth), rel=0.2)


def test_labels_and_scores_keep_their_contract(
    segmenter: CellposeSegmenter, component: Component
) -> None:
    image, _ = discs(22, 12, 160)

    result = segment(segmenter, component, image)

    assert result.labels.dtype == np.int32
    assert result.labels.shape == (160, 160)
    np.testing.assert_array_equal(np.unique(result.labels), np.arange(len(result.scores) + 1))
    assert result.scores.dtype == np.float32
    assert ((result.scores >= 0) & (result.scores <= 1)).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 1), (40, 1, 3), (3, 3, 1), (5, 9, 3)])
@pytest.mark.parametrize("value", [0, 255])
def test_tiny_and_blank_images_have_no_objects(
    shape: tuple[int, int, int], value: int, segmenter: CellposeSegmenter, component: Component
) -> None:
    image = Image(pixels=np.full(shape, value, np.uint8), sha256=f"{shape} {value}")

    result = segment(segmenter, component, image)

    assert result.labels.shape == shape[:2]
    assert len(result.scores) == result.labels.max() == 0


def test_noise_alone_is_answered(segmenter: CellposeSegmenter, component: Component) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (96, 80, 3), dtype=np.uint8)

    result = segment(segmenter, component, Image(pixels=pixels, sha256="noise"))

    assert result.labels.shape == (96, 80)
    assert len(result.scores) == result.labels.max()


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_the_data_type_does_not_matter(
    dtype: type, segmenter: CellposeSegmenter, component: Component
) -> None:
    image, _ = discs(22, 12, 160)
    wide = Image(pixels=(image.pixels.astype(dtype) * 16 + 900), sha256=f"wide {dtype}")

    np.testing.assert_array_equal(
        segment(segmenter, component, wide).labels, segment(segmenter, component, image).labels
    )


def test_the_same_image_gives_the_same_answer_with_and_without_the_cache(
    networks: NetworkStore, component: Component
) -> None:
    image, _ = discs(14, 20, 160)
    without = CellposeSegmenter(networks, flow_cache_mb=0)
    cached = CellposeSegmenter(networks)

    results = [segment(one, component, image) for one in (without, without, cached, cached)]

    for result in results[1:]:
        np.testing.assert_array_equal(result.labels, results[0].labels)
        np.testing.assert_array_equal(result.scores, results[0].scores)


def test_another_threshold_on_the_same_image_runs_no_network(
    segmenter: CellposeSegmenter, component: Component
) -> None:
    image, _ = discs(22, 12, 160)
    given = SegmentationOptions(diameter=22)
    segment(segmenter, component, image, given)
    gone = dataclasses.replace(component, sha256=component.sha256, path="/nowhere")

    strict = dataclasses.replace(given, flow_threshold=0.01, min_size=60)
    result = segment(segmenter, gone, image, strict)

    assert len(result.scores) < 12


def test_eight_threads_get_what_one_gets(networks: NetworkStore, component: Component) -> None:
    images = [discs(16, 6, 96, seed)[0] for seed in range(6)]
    options = SegmentationOptions(diameter=20)
    shared = CellposeSegmenter(networks, flow_cache_mb=0)
    alone = [segment(shared, component, image, options) for image in images]

    with ThreadPoolExecutor(8) as pool:
        together = list(
            pool.map(lambda image: segment(shared, component, image, options), images * 2)
        )

    for one, other in zip(alone * 2, together, strict=True):
        (matching,) = match_instances(one.labels, other.labels, thresholds=[0.9])
        assert matching.average_precision == 1  # batches of other sizes round differently


class NoRoom(nn.Module):
    """A network for whose tiles the device has no memory."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1), requires_grad=False)
        self.full = False

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.full:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x[:, :3] * self.weight, x


class PretendGpu(DeviceThread):
    """A device thread on the CPU that is taken for another device."""

    def __init__(self) -> None:
        super().__init__(CPU)

    @property
    def can_fall_back(self) -> bool:
        """Answer as a GPU's thread does."""
        return True


def full_networks(thread: DeviceThread) -> NetworkStore:
    store = NetworkStore(thread, load=lambda _: NoRoom())
    served = store.get(_fake(), priority=Priority.BATCH)
    served.network.full = True
    return store


def _fake() -> Component:
    return Component(name="x", architecture=SAM_VITL, sha256="1" * 64, path="", licence="none")


def test_an_image_the_device_has_no_memory_for_is_segmented_on_the_cpu_and_says_so() -> None:
    image, _ = discs(22, 5, 100)
    room = NetworkStore(DeviceThread(CPU), load=lambda _: NoRoom())

    with CellposeSegmenter(
        full_networks(PretendGpu()), make_cpu_networks=lambda: room
    ) as segmenter:
        result = segment(segmenter, _fake(), image)

    assert result.notes == (ON_CPU_NOTE,)


def test_without_a_second_device_running_out_of_memory_is_an_error() -> None:
    image, _ = discs(22, 5, 100)

    with (
        CellposeSegmenter(full_networks(DeviceThread(CPU))) as segmenter,
        pytest.raises(OutOfMemory),
    ):
        segment(segmenter, _fake(), image)


def test_a_given_diameter_is_taken(segmenter: CellposeSegmenter, component: Component) -> None:
    image, _ = discs(22, 12, 160)

    result = segment(segmenter, component, image, SegmentationOptions(diameter=20))

    assert result.diameter == 20


def test_warming_returns_what_was_measured(component: Component) -> None:
    with open_segmenter(CPU) as segmenter:
        profile = segmenter.warm(component)

    assert profile.device == "cpu"
    assert profile.precision in profile.tile_ms


def test_flows_are_handed_out_with_the_instances_that_they_made(
    segmenter: CellposeSegmenter, component: Component
) -> None:
    image, truth = discs(22, 12, 160)

    found, flows = segmenter.segment_with_flows(
        image, DEFAULTS, component=component, priority=Priority.BATCH
    )

    (block,) = flows.final_positions()
    assert np.array_equal(found.labels, segment(segmenter, component, image).labels)
    assert flows.xy.shape == (2, 160, 160)
    assert flows.cell_probability.shape == (160, 160)
    assert flows.cell_probability[truth > 0].mean() > 0 > flows.cell_probability[truth == 0].mean()
    for number in range(1, int(found.labels.max()) + 1):
        mask = found.labels == number
        middle = np.argwhere(mask).mean(axis=0)[:, None]
        assert np.median(np.abs(block.ends[:, mask] - middle)) < 4


@pytest.mark.parametrize("shape", [(3, 40), (30, 40)])
def test_an_image_with_nothing_in_it_has_flows_of_nothing(
    shape: tuple[int, int], segmenter: CellposeSegmenter, component: Component
) -> None:
    image = Image(pixels=np.zeros((*shape, 1), np.uint8), sha256=f"blank {shape}")

    found, flows = segmenter.segment_with_flows(
        image, DEFAULTS, component=component, priority=Priority.BATCH
    )

    (block,) = flows.final_positions()
    assert len(found.scores) == 0
    assert not flows.xy.any()
    assert (flows.cell_probability < 0).all()
    assert np.array_equal(block.ends, np.indices(shape))
