"""Our dynamics, flow errors and label images against Cellpose's own."""

from __future__ import annotations

import warnings
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from cellpose import dynamics

from ml_backend.engines.dynamics import follow_flows, group_endpoints
from ml_backend.engines.flow_error import flow_errors
from ml_backend.engines.instances import (
    LARGEST_SHARE,
    InstanceOptions,
    _find_in_blocks,
    find_instances,
    follow_on_cpu,
)
from tests.unit.engines.conftest import Labels, discs

pytestmark = pytest.mark.unhurried

CPU = torch.device("cpu")
DEFAULTS = InstanceOptions(flow_threshold=0.4, cellprob_threshold=0.0, iterations=200, min_size=15)
Flows = npt.NDArray[np.float32]


def touching_cells(seed: int) -> Labels:
    """Return cells of very different sizes that touch: the nearest seed point owns a pixel."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:100, :120]
    points = random.uniform(0, 1, (20, 2)) * (100, 120)
    distance = np.hypot(y[..., None] - points[:, 0], x[..., None] - points[:, 1])
    labels = (distance.argmin(axis=2) + 1) * (distance.min(axis=2) < 15)
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)


def flows_of(labels: Labels, noise: float, seed: int = 0) -> tuple[Flows, Flows]:
    """Return flows and cell probability of `labels`, disturbed as a network would."""
    random = np.random.default_rng(seed)
    flows = 5 * dynamics.labels_to_flows([labels], device=CPU)[0][-2:]
    disturbed = [
        cv2.GaussianBlur(flow + random.normal(0, noise * 10, flow.shape), (0, 0), 2)
        for flow in flows
    ]
    cell_probability = np.where(labels > 0, 4.0, -4.0) + random.normal(0, 0.5, labels.shape)
    return np.array(disturbed, np.float32), cell_probability.astype(np.float32)


def stock_masks(flows: Flows, cell_probability: Flows, options: InstanceOptions) -> Labels:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's about sparse tensors
        masks = dynamics.resize_and_compute_masks(
            flows,
            cell_probability,
            niter=options.iterations,
            cellprob_threshold=options.cellprob_threshold,
            flow_threshold=options.flow_threshold,
            min_size=options.min_size,
        )
    return masks.astype(np.int32)


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0])
def test_pixels_end_where_cellpose_moves_them(noise: float) -> None:
    flows, cell_probability = flows_of(touching_cells(1), noise)
    inside = cell_probability > 0

    pixels, ends = follow_flows(flows, inside, 200, device=CPU)
    stock = dynamics.follow_flows(flows * inside / 5.0, inds=np.nonzero(inside), niter=200)

    np.testing.assert_array_equal(np.flatnonzero(inside), pixels)
    different = (stock.int().numpy() != ends).any(axis=0).mean()
    assert different < 0.002  # pixels that stopped on a pixel's border


def test_end_points_make_the_objects_that_cellpose_makes() -> None:
    flows, cell_probability = flows_of(touching_cells(2), 0.7)
    inside = cell_probability > 0
    pixels, ends = follow_flows(flows, inside, 200, device=CPU)

    ours = group_endpoints(pixels, ends, inside.shape, largest=0.4 * inside.size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stock = dynamics.get_masks_torch(
            torch.from_numpy(ends.copy()).int(), np.nonzero(inside), inside.shape
        )

    np.testing.assert_array_equal(stock.astype(np.int32), ours)


def test_no_pixel_where_many_end_means_no_object() -> None:
    pixels = np.arange(100)

    labels = group_endpoints(pixels, np.stack([pixels // 10, pixels % 10]), (10, 10), largest=99)

    assert not labels.any()


@pytest.mark.parametrize("seed", range(4))
def test_flow_errors_in_boxes_equal_cellposes(seed: int) -> None:
    labels = touching_cells(seed)
    flows, _ = flows_of(labels, 1.0, seed)

    ours = flow_errors(labels, flows)
    stock, _ = dynamics.flow_error(labels, flows, device=CPU)

    np.testing.assert_allclose(ours, stock, rtol=1e-9)


def test_flow_errors_of_nothing_are_nothing() -> None:
    assert len(flow_errors(np.zeros((20, 20), np.int32), np.zeros((2, 20, 20), np.float32))) == 0


@pytest.mark.parametrize("noise", [0.0, 0.7, 1.2])
@pytest.mark.parametrize("flow_threshold", [0.0, 0.4])
def test_masks_equal_cellposes(noise: float, flow_threshold: float) -> None:
    flows, cell_probability = flows_of(touching_cells(3), noise)
    options = InstanceOptions(
        flow_threshold=flow_threshold, cellprob_threshold=0.2, iterations=200, min_size=20
    )

    found = find_instances(flows, cell_probability, options)
    stock = stock_masks(flows, cell_probability, options)

    assert stock.max() == found.labels.max()
    assert (stock != found.labels).mean() < 0.001


def test_a_stricter_flow_threshold_removes_the_objects_with_large_errors() -> None:
    flows, cell_probability = flows_of(touching_cells(4), 1.0)
    lax = InstanceOptions(flow_threshold=0.0, cellprob_threshold=0.0, iterations=200, min_size=0)
    everything = find_instances(flows, cell_probability, lax)
    threshold = float(np.median(everything.flow_errors))

    strict = InstanceOptions(
        flow_threshold=threshold, cellprob_threshold=0.0, iterations=200, min_size=0
    )
    found = find_instances(flows, cell_probability, strict)

    assert found.flow_errors.max() <= threshold
    assert len(found.scores) == np.count_nonzero(everything.flow_errors <= threshold)


def test_scores_belong_to_their_objects() -> None:
    _, labels = discs(20, 12, 200)
    flows, cell_probability = flows_of(labels, 0.0)
    doubtful = labels == labels[labels > 0][0]
    cell_probability[doubtful] = 0.1

    found = find_instances(flows, cell_probability, DEFAULTS)

    assert len(found.scores) == found.labels.max() == labels.max()
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    number = int(np.median(found.labels[doubtful]))
    assert found.scores.argmin() == number - 1
    assert 0.4 < found.scores[number - 1] < 0.6


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (3, 50), (40, 2)])
def test_an_image_too_narrow_for_an_object_has_none(shape: tuple[int, int]) -> None:
    found = find_instances(np.zeros((2, *shape), np.float32), np.ones(shape, np.float32), DEFAULTS)

    assert found.labels.shape == shape
    assert not found.labels.any()
    assert len(found.scores) == 0


def test_blocks_find_what_the_whole_image_has() -> None:
    _, labels = discs(18, 60, 400)
    flows, cell_probability = flows_of(labels, 0.5)
    whole = find_instances(flows, cell_probability, DEFAULTS)

    blocks = _find_in_blocks(
        flows, cell_probability, DEFAULTS, overlap=40, follow=follow_on_cpu, block=150
    )

    assert LARGEST_SHARE == 0.4
    assert whole.labels.max() == blocks.labels.max() == len(blocks.scores)
    np.testing.assert_array_equal(whole.labels > 0, blocks.labels > 0)
    pairs = np.unique(np.stack([whole.labels.ravel(), blocks.labels.ravel()]), axis=1)
    assert pairs.shape[1] == whole.labels.max() + 1  # one to one


def test_an_object_far_larger_than_the_overlap_is_not_cut_at_a_block_and_blocks_may_be_empty() -> (
    None
):
    labels = np.zeros((280, 280), np.int32)
    rows, columns = np.ogrid[:280, :280]
    labels[(rows - 60) ** 2 + (columns - 95) ** 2 <= 40**2] = 1
    flows, cell_probability = flows_of(labels, 0.0)
    options = replace(DEFAULTS, iterations=600)
    whole = find_instances(flows, cell_probability, options)

    blocks = _find_in_blocks(
        flows, cell_probability, options, overlap=10, follow=follow_on_cpu, block=80
    )

    assert whole.labels.max() == 1
    np.testing.assert_array_equal(whole.labels, blocks.labels)
    assert len(blocks.scores) == 1


def test_a_large_blank_answer_has_no_instances() -> None:
    flows = np.zeros((2, 2100, 2100), np.float32)

    found = find_instances(flows, np.full((2100, 2100), -5.0, np.float32), DEFAULTS)

    assert len(found.scores) == 0
    assert not found.labels.any()
