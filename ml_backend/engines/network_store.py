"""The networks in a device's memory: the most recently used few, loaded once, verified, tried."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
import torch
from torch import nn

from ml_backend.domain import Component, Priority, Urgency
from ml_backend.engines.batching import DeviceThread
from ml_backend.engines.device_memory import free_memory, is_out_of_memory, return_memory
from ml_backend.engines.device_profile import DeviceProfile, Precision
from ml_backend.engines.networks import load_network
from ml_backend.engines.served_network import ServedNetwork, serve_network, try_network
from ml_backend.errors import BackendError, EngineError, OutOfMemory

log = structlog.get_logger(__name__)

Load = Callable[[Component], nn.Module]


def load_on_cpu(component: Component) -> nn.Module:
    """Return the verified float32 network of `component` in main memory."""
    return load_network(component, torch.device("cpu"))


class NetworkStore:
    """Up to `max_networks` networks on one device; safe to use from many threads.

    A file is read and verified in the caller's thread; only moving and measuring take the device's
    time. A network that has been displaced lives on until the last request for it has ended.
    """

    def __init__(
        self, device: DeviceThread, *, max_networks: int = 2, load: Load = load_on_cpu
    ) -> None:
        self.device = device
        self._max_networks = max(1, max_networks)
        self._load = load
        self._lock = threading.Lock()
        self._served: OrderedDict[str, ServedNetwork] = OrderedDict()
        self._loading: dict[str, threading.Lock] = {}
        self._measured: dict[str, tuple[Precision, DeviceProfile]] = {}  # by architecture
        self._when_displaced: Callable[[Component], None] | None = None

    def get(self, component: Component, *, priority: Urgency) -> ServedNetwork:
        """Return the network of `component`, loading it if it is not there.

        Raises:
            ModelError: it cannot be loaded.
            EngineError: the device cannot hold or run it.
        """
        served = self._find(component)
        if served is not None:
            return served
        with self._lock:
            loading = self._loading.setdefault(component.sha256, threading.Lock())
        with loading:
            served = self._find(component)
            if served is None:
                served = self._add(component, priority)
        with self._lock:
            self._loading.pop(component.sha256, None)  # a hundred versions later still few locks
        return served

    def prove(self, component: Component, *, priority: Urgency) -> ServedNetwork:
        """Return the network of `component` once it has answered with numbers on this device.

        Raises:
            CheckpointInvalid: its answer is not finite.
            ModelError: it cannot be loaded.
            EngineError: the device cannot hold or run it.
        """
        served = self.get(component, priority=priority)
        with _failures_of(component, self.device):
            self.device.call(lambda: try_network(served), priority=priority)
        return served

    def when_displaced(self, tell: Callable[[Component], None]) -> None:
        """Have `tell` called with each network that is displaced from now on."""
        self._when_displaced = tell

    def names(self) -> list[str]:
        """Return the names of the networks in memory, least recently used first."""
        with self._lock:
            return [served.component.name for served in self._served.values()]

    def close(self) -> None:
        """End the device's thread and let go of all networks."""
        self.device.close()
        with self._lock:
            self._served.clear()

    def _find(self, component: Component) -> ServedNetwork | None:
        with self._lock:
            served = self._served.get(component.sha256)
            if served is not None:
                self._served.move_to_end(component.sha256)
            return served

    def _add(self, component: Component, priority: Urgency) -> ServedNetwork:
        network = self._load(component)
        self._make_room()
        known = self._measured.get(component.architecture)

        def serve() -> ServedNetwork:
            return serve_network(component, network, self.device.device, known)

        with _failures_of(component, self.device):
            if known is not None and not self.device.can_fall_back:
                # main memory: it is only copied, and nobody needs to wait for that
                served = serve()
            else:
                served = self.device.call(serve, priority=priority)
        with self._lock:
            self._measured[component.architecture] = (served.precision, served.profile)
            self._served[component.sha256] = served
        log.info(
            "network ready",
            name=component.name,
            sha256=component.sha256[:12],
            precision=served.profile.sentence(),
        )
        return_memory()  # of the one that was displaced, and what loading took for itself
        return served

    def _make_room(self) -> None:
        """Let go of the networks that one more would be too many with."""
        with self._lock:
            # before it is there: the device may not hold one more than max_networks
            displaced = []
            while len(self._served) >= self._max_networks:
                displaced.append(self._served.popitem(last=False)[1].component)
        for component in displaced:
            log.info("network displaced", name=component.name)
            if self._when_displaced is not None:
                self._when_displaced(component)


@contextmanager
def _failures_of(component: Component, device: DeviceThread) -> Iterator[None]:
    """Turn whatever torch raises into an error that names the network."""
    try:
        yield
    except BackendError:
        raise
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            device.call(lambda: free_memory(device.device), priority=Priority.INTERACTIVE)
            raise OutOfMemory(
                f"{device.device} has no room for the network {component.name!r}."
            ) from error
        raise EngineError(f"{component.name!r} does not run here: {error}.") from error
