"""One thread owns the device: order, shared batches, memory, errors, the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from ml_backend.domain import Priority, Urgency
from ml_backend.engines.batching import DeviceThread
from ml_backend.engines.device_memory import is_out_of_memory
from ml_backend.engines.served_network import ServedNetwork
from ml_backend.errors import EngineError, EngineUnavailable, OutOfMemory
from tests.unit.engines.conftest import Doubling, served


class Gate:
    """Keeps the device's thread busy until it is opened."""

    def __init__(self, thread: DeviceThread) -> None:
        self._open = threading.Event()
        entered = threading.Event()

        def hold() -> None:
            entered.set()
            self._open.wait(10)

        self._holder = threading.Thread(
            target=lambda: thread.call(hold, priority=Priority.INTERACTIVE)
        )
        self._holder.start()
        entered.wait(10)

    def open(self) -> None:
        """Let the device's thread go on."""
        self._open.set()
        self._holder.join(10)


class Batched(ServedNetwork):
    """A network that takes eight tiles at once."""

    def batch_for(self, tile_yx: tuple[int, int]) -> int:
        return 8


def batched(module: Doubling) -> ServedNetwork:
    base = served(module)
    return Batched(**{name: getattr(base, name) for name in base.__dataclass_fields__})


def tile(value: float, edge: int = 4) -> np.ndarray:
    return np.full((1, edge, edge), value, np.float32)


def run(
    thread: DeviceThread,
    network: ServedNetwork,
    values: list[float],
    priority: Priority = Priority.BATCH,
) -> list[float]:
    """Return the first pixel of each tile's answer, in the tiles' order."""
    answers = dict(
        thread.run_tiles(
            network, lambda index: tile(values[index]), len(values), (4, 4), priority=priority
        )
    )
    return [float(answers[index][0, 0, 0]) for index in range(len(values))]


def wait_for(thread: DeviceThread, requests: int) -> None:
    """Wait until that many requests are queued."""
    for _ in range(1000):
        if thread.waiting == requests:
            return
        time.sleep(0.005)
    raise AssertionError(f"{thread.waiting} requests wait, not {requests}")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as executor:
        yield executor


def test_every_tile_comes_back_with_its_answer(device_thread: DeviceThread) -> None:
    network = batched(Doubling())

    assert run(device_thread, network, [1, 2, 3]) == [2, 4, 6]


def test_tiles_of_several_requests_share_a_batch(
    device_thread: DeviceThread, pool: ThreadPoolExecutor
) -> None:
    module = Doubling()
    network = batched(module)
    gate = Gate(device_thread)
    asked = [pool.submit(run, device_thread, network, [n, n + 0.5]) for n in (1, 2, 3)]
    wait_for(device_thread, 3)

    gate.open()

    assert [future.result(10) for future in asked] == [[2, 3], [4, 5], [6, 7]]
    assert module.batches == [6]


def test_requests_for_other_networks_do_not_share_a_batch(
    device_thread: DeviceThread, pool: ThreadPoolExecutor
) -> None:
    modules = [Doubling(), Doubling()]
    gate = Gate(device_thread)
    asked = [pool.submit(run, device_thread, batched(module), [1, 2]) for module in modules]
    wait_for(device_thread, 2)

    gate.open()

    assert [future.result(10) for future in asked] == [[2, 4], [2, 4]]
    assert [module.batches for module in modules] == [[2], [2]]


def test_someone_who_waits_overtakes_a_batch_at_its_next_unit(
    device_thread: DeviceThread, pool: ThreadPoolExecutor
) -> None:
    order: list[str] = []
    module = Doubling()
    network = served(module)  # one tile at a time
    gate = Gate(device_thread)

    def noted(name: str) -> Callable[[int], np.ndarray]:
        def cut(index: int) -> np.ndarray:
            order.append(name)
            return tile(index)

        return cut

    def ask(name: str, count: int, priority: Priority) -> None:
        list(device_thread.run_tiles(network, noted(name), count, (4, 4), priority=priority))

    batch = pool.submit(ask, "batch", 4, Priority.BATCH)
    wait_for(device_thread, 1)
    person = pool.submit(ask, "person", 1, Priority.INTERACTIVE)
    wait_for(device_thread, 2)

    gate.open()
    batch.result(10)
    person.result(10)

    assert order == ["person", "batch", "batch", "batch", "batch"]


def test_work_that_somebody_comes_to_wait_for_overtakes_what_was_queued_before_it(
    device_thread: DeviceThread, pool: ThreadPoolExecutor
) -> None:
    order: list[str] = []
    network = served(Doubling())  # one tile at a time
    gate = Gate(device_thread)
    urgency = Priority.BATCH

    def ask(name: str, priority: Urgency) -> None:
        def cut(index: int) -> np.ndarray:
            order.append(name)
            return tile(index)

        list(device_thread.run_tiles(network, cut, 2, (4, 4), priority=priority))

    asked = [pool.submit(ask, "first", Priority.BATCH)]
    wait_for(device_thread, 1)
    asked.append(pool.submit(ask, "second", lambda: urgency))
    wait_for(device_thread, 2)

    urgency = Priority.INTERACTIVE
    gate.open()
    for future in asked:
        future.result(10)

    assert order == ["second", "second", "first", "first"]


def test_equal_requests_are_served_in_the_order_of_asking(
    device_thread: DeviceThread, pool: ThreadPoolExecutor
) -> None:
    done: list[int] = []
    gate = Gate(device_thread)
    asked = []
    for number in range(4):
        asked.append(
            pool.submit(
                device_thread.call, lambda n=number: done.append(n), priority=Priority.BATCH
            )
        )
        wait_for(device_thread, number + 1)

    gate.open()
    for future in asked:
        future.result(10)

    assert done == [0, 1, 2, 3]


def test_a_batch_that_does_not_fit_is_halved_and_stays_halved(device_thread: DeviceThread) -> None:
    module = Doubling(largest_batch=3)
    network = batched(module)

    first = run(device_thread, network, list(range(8)))
    second = run(device_thread, network, list(range(4)))

    assert first == [2 * n for n in range(8)]
    assert second == [0, 2, 4, 6]
    assert module.tried == [8, 4, 2, 2, 2, 2, 2, 2]
    assert max(module.batches) == 2


def test_a_tile_that_does_not_fit_alone_is_out_of_memory(device_thread: DeviceThread) -> None:
    network = batched(Doubling(largest_batch=0))

    with pytest.raises(OutOfMemory):
        run(device_thread, network, [1, 2])

    assert run(device_thread, batched(Doubling()), [3]) == [6]


def test_a_bad_request_does_not_spoil_those_that_shared_its_batch(
    device_thread: DeviceThread, pool: ThreadPoolExecutor
) -> None:
    network = batched(Doubling(poison=13))
    gate = Gate(device_thread)
    good = pool.submit(run, device_thread, network, [1, 2])
    bad = pool.submit(run, device_thread, network, [13])
    wait_for(device_thread, 2)

    gate.open()

    assert good.result(10) == [2, 4]
    with pytest.raises(EngineError, match="poisoned"):
        bad.result(10)


def test_an_error_while_cutting_reaches_its_caller_only(device_thread: DeviceThread) -> None:
    network = batched(Doubling())

    def cut(index: int) -> np.ndarray:
        raise ValueError("no such tile")

    with pytest.raises(EngineError, match="no such tile"):
        list(device_thread.run_tiles(network, cut, 1, (4, 4), priority=Priority.BATCH))

    assert run(device_thread, network, [1]) == [2]


def test_a_function_s_error_reaches_its_caller(device_thread: DeviceThread) -> None:
    with pytest.raises(ZeroDivisionError):
        device_thread.call(lambda: 1 / 0, priority=Priority.BATCH)

    assert device_thread.call(lambda: 5, priority=Priority.BATCH) == 5


def test_a_caller_that_stops_early_leaves_no_work_behind(device_thread: DeviceThread) -> None:
    module = Doubling()
    gone = threading.Event()

    def cut(index: int) -> np.ndarray:
        if index >= 5:
            gone.wait(10)
        return tile(index)

    answers = device_thread.run_tiles(served(module), cut, 50, (4, 4), priority=Priority.BATCH)
    next(answers)
    answers.close()
    gone.set()
    device_thread.call(lambda: None, priority=Priority.BACKGROUND)

    assert len(module.batches) <= 6
    assert device_thread.waiting == 0


def test_eight_threads_get_their_own_answers(
    device_thread: DeviceThread, pool: ThreadPoolExecutor
) -> None:
    network = batched(Doubling())
    wanted = [[float(10 * n + k) for k in range(n + 1)] for n in range(40)]

    answers = list(pool.map(lambda values: run(device_thread, network, values), wanted))

    assert answers == [[2 * value for value in values] for values in wanted]


def test_closing_refuses_what_waits_and_what_comes(pool: ThreadPoolExecutor) -> None:
    thread = DeviceThread(torch.device("cpu"))
    gate = Gate(thread)
    waiting = pool.submit(run, thread, served(Doubling()), [1])
    wait_for(thread, 1)
    closing = pool.submit(thread.close)

    gate.open()
    closing.result(10)

    with pytest.raises(EngineUnavailable):
        waiting.result(10)
    with pytest.raises(EngineUnavailable):
        thread.call(lambda: 1, priority=Priority.BATCH)
    thread.close()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_running_out_of_memory_is_recognised(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
