"""Flows of recent images are kept, shared and bounded."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ml_backend.engines.flow_cache import FlowCache
from ml_backend.engines.flow_field import FlowField


def field(edge: int = 10) -> FlowField:
    return FlowField(
        flows=np.zeros((2, edge, edge), np.float32),
        cell_probability=np.zeros((edge, edge), np.float32),
        steps=200,
        diameter=None,
    )


def test_a_kept_field_is_not_computed_again() -> None:
    cache = FlowCache(10_000)
    first = cache.get("a", field)

    again = cache.get("a", lambda: pytest.fail("computed again"))

    assert again is first


def test_the_least_recently_used_field_makes_room() -> None:
    cache = FlowCache(3 * field().size)
    kept = {key: cache.get(key, field) for key in "abc"}
    cache.get("a", field)

    cache.get("d", field)

    assert cache.get("a", field) is kept["a"]
    assert cache.get("b", field) is not kept["b"]
    assert cache.size == 3 * field().size


def test_a_field_larger_than_the_cache_is_passed_on_and_not_kept() -> None:
    cache = FlowCache(100)

    assert cache.get("a", field).size > 100

    assert cache.size == 0


def test_requests_at_the_same_time_share_one_computation() -> None:
    cache = FlowCache(10_000)
    started, finish, computed = threading.Event(), threading.Event(), []

    def slowly() -> FlowField:
        started.set()
        finish.wait(10)
        computed.append(1)
        return field()

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(cache.get, "a", slowly)
        started.wait(10)
        others = [pool.submit(cache.get, "a", slowly) for _ in range(3)]
        finish.set()
        results = {id(future.result(10)) for future in [first, *others]}

    assert len(results) == len(computed) == 1


def test_a_failed_computation_is_tried_again() -> None:
    cache = FlowCache(10_000)

    with pytest.raises(ZeroDivisionError):
        cache.get("a", lambda: 1 // 0)

    assert cache.get("a", field).steps == 200
