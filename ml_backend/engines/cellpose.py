"""Arrays to instances with networks that predict Cellpose's flows.

The loop is our own around Cellpose's pieces: `CellposeModel.eval` writes into a dictionary shared
by its whole module, has no scores and works alone. What it decides is kept to the letter where a
Cellpose network runs: normalisation, resizing to 30 px, tiles, taper, dynamics, thresholds.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
import structlog
import torch

from ml_backend.domain import (
    Component,
    Flows,
    Image,
    Priority,
    Segmentation,
    SegmentationOptions,
    Urgency,
)
from ml_backend.engines.batch_observer import BatchObserver
from ml_backend.engines.batching import DeviceThread
from ml_backend.engines.catalogue import verify_component
from ml_backend.engines.device_profile import DeviceProfile
from ml_backend.engines.dynamics import follow_flows
from ml_backend.engines.final_positions import final_positions
from ml_backend.engines.flow_cache import FlowCache
from ml_backend.engines.flow_field import FlowField, compute_flow_field, no_flow_field
from ml_backend.engines.instances import (
    SMALLEST_SIDE,
    BoolArray,
    Follow,
    Followed,
    InstanceOptions,
    find_instances,
    follow_on_cpu,
)
from ml_backend.engines.network_store import NetworkStore
from ml_backend.engines.normalisation import FloatArray
from ml_backend.engines.scale import median_diameter
from ml_backend.errors import OutOfMemory

Result = TypeVar("Result")

log = structlog.get_logger(__name__)

ON_CPU_NOTE = "The device ran out of memory, so this image was segmented on the CPU."


class CellposeSegmenter:
    """A `Segmenter` on one device; safe to call from many threads; a context manager."""

    def __init__(
        self,
        networks: NetworkStore,
        *,
        make_cpu_networks: Callable[[], NetworkStore] | None = None,
        flow_cache_mb: int = 512,
    ) -> None:
        """Take over `networks` and their device.

        Args:
            networks: of the device to use.
            make_cpu_networks: opens the CPU as a second device, for images that do not fit the
                first; None = such images are refused.
            flow_cache_mb: memory for flows of recent images.
        """
        self._networks = networks
        self._make_cpu_networks = make_cpu_networks
        self._cpu_networks: NetworkStore | None = None
        self._cpu_lock = threading.Lock()
        self._cache = FlowCache(flow_cache_mb * 1024 * 1024)
        networks.when_displaced(self._forget)

    def __enter__(self) -> CellposeSegmenter:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Finish the unit on the device, refuse what waits; safe to call twice."""
        self._networks.close()
        with self._cpu_lock:
            if self._cpu_networks is not None:
                self._cpu_networks.close()

    @property
    def kept_bytes(self) -> int:
        """Return what the flows of recent images take."""
        return self._cache.size

    @property
    def kept_asked(self) -> tuple[int, int]:
        """Return how often such flows were there when asked for, and how often not."""
        return self._cache.asked

    def networks(self) -> list[str]:
        """Return the names of the networks on the device."""
        return self._networks.names()

    def waiting(self) -> int:
        """Return how many requests have work that is not on the device yet."""
        return self._networks.device.waiting

    def warm(self, component: Component) -> DeviceProfile:
        """Load, verify and try the network of `component`; return what was measured.

        Raises:
            CheckpointInvalid: its file is not what it was, or it answers with no numbers.
            ModelError, EngineError
        """
        verify_component(component)
        return self._networks.prove(component, priority=Priority.BACKGROUND).profile

    def run_on_device(self, work: Callable[[], Result], *, priority: Urgency) -> Result:
        """Return what `work` returns, run when the device has nothing more urgent to do.

        Raises:
            EngineUnavailable: it is closed.
        """
        return self._networks.device.call(work, priority=priority)

    def segment(
        self,
        image: Image,
        options: SegmentationOptions,
        *,
        component: Component,
        priority: Urgency,
    ) -> Segmentation:
        """Return the instances of `image`; blocks until they are there.

        Raises:
            ModelError, OutOfMemory, EngineError
        """
        return self._segment(image, options, component, priority)[0]

    def segment_with_flows(
        self,
        image: Image,
        options: SegmentationOptions,
        *,
        component: Component,
        priority: Urgency,
    ) -> tuple[Segmentation, Flows]:
        """Return the instances of `image` and what the network said of its pixels.

        Raises:
            ModelError, OutOfMemory, EngineError
        """
        segmentation, field, chosen = self._segment(image, options, component, priority)
        positions = partial(
            final_positions,
            field.flows,
            field.cell_probability,
            chosen,
            diameter=field.diameter,
            follow=_follower(self._networks.device, priority),
        )
        return segmentation, Flows(
            xy=field.flows, cell_probability=field.cell_probability, final_positions=positions
        )

    def _segment(
        self,
        image: Image,
        options: SegmentationOptions,
        component: Component,
        priority: Urgency,
    ) -> tuple[Segmentation, FlowField, InstanceOptions]:
        if options.diameter is None and component.diameter is not None:
            # a network that was fine-tuned finds objects of the size that it was fine-tuned on
            options = dataclasses.replace(options, diameter=component.diameter)
        if min(image.height, image.width) < SMALLEST_SIDE:
            field = no_flow_field((image.height, image.width), options.diameter)
            return _nothing(image, options), field, _instance_options(options, field)
        key = (
            component.sha256,
            image.sha256,
            options.plane,
            options.channels,
            options.clahe,
            options.diameter,
        )
        compute = partial(self.compute_field, image, options, component)
        field = self._cache.get(key, compute, priority=priority)
        chosen = _instance_options(options, field)
        found = find_instances(
            field.flows,
            field.cell_probability,
            chosen,
            diameter=field.diameter,
            follow=_follower(self._networks.device, priority),
        )
        segmentation = Segmentation(
            labels=found.labels,
            scores=found.scores,
            diameter=field.diameter or median_diameter(found.labels),
            notes=field.notes,
        )
        return segmentation, field, chosen

    def compute_field(
        self,
        image: Image,
        options: SegmentationOptions,
        component: Component,
        priority: Urgency,
    ) -> FlowField:
        """Return what the network says about `image`, from the CPU where memory runs out.

        Raises:
            ModelError, OutOfMemory, EngineError
        """
        try:
            return compute_flow_field(self._networks, image, options, component, priority)
        except OutOfMemory:
            fallback = self._open_cpu()
            if fallback is None:
                raise
            log.warning("image falls back to the CPU", width=image.width, height=image.height)
        field = compute_flow_field(fallback, image, options, component, priority)
        return dataclasses.replace(field, notes=(*field.notes, ON_CPU_NOTE))

    def _forget(self, displaced: Component) -> None:
        # after a swap nobody asks for them again, and they would displace those of others
        self._cache.drop(lambda key: isinstance(key, tuple) and key[0] == displaced.sha256)

    def _open_cpu(self) -> NetworkStore | None:
        if not self._networks.device.can_fall_back or self._make_cpu_networks is None:
            return None
        with self._cpu_lock:
            if self._cpu_networks is None:
                self._cpu_networks = self._make_cpu_networks()
            return self._cpu_networks


def open_segmenter(
    device: torch.device,
    *,
    max_networks: int = 2,
    flow_cache_mb: int = 512,
    observer: BatchObserver | None = None,
) -> CellposeSegmenter:
    """Return a segmenter on `device` that falls back to the CPU where memory runs out.

    Args:
        device: That networks run on.
        max_networks: Kept in its memory.
        flow_cache_mb: Memory for flows of recent images.
        observer: Is told of every batch, on the fallback too.
    """

    def cpu_networks() -> NetworkStore:
        return NetworkStore(DeviceThread(torch.device("cpu"), observer=observer), max_networks=1)

    return CellposeSegmenter(
        NetworkStore(DeviceThread(device, observer=observer), max_networks=max_networks),
        make_cpu_networks=cpu_networks,
        flow_cache_mb=flow_cache_mb,
    )


def _instance_options(options: SegmentationOptions, field: FlowField) -> InstanceOptions:
    return InstanceOptions(
        flow_threshold=options.flow_threshold,
        cellprob_threshold=options.cellprob_threshold,
        iterations=options.iterations or field.steps,
        min_size=options.min_size,
    )


def _nothing(image: Image, options: SegmentationOptions) -> Segmentation:
    return Segmentation(
        labels=np.zeros((image.height, image.width), np.int32),
        scores=np.zeros(0, np.float32),
        diameter=options.diameter or 0.0,
    )


def _follower(device: DeviceThread, priority: Urgency) -> Follow:
    # a CUDA device integrates a thousand times faster than a core; others are not worth the queue
    if device.device.type != "cuda":
        return follow_on_cpu

    def follow(flows: FloatArray, inside: BoolArray, iterations: int) -> Followed:
        work = partial(follow_flows, flows, inside, iterations, device=device.device)
        try:
            return device.call(work, priority=priority)
        except torch.OutOfMemoryError:
            return follow_on_cpu(flows, inside, iterations)

    return follow
