"""Flows of recent images are kept, shared and bounded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ml_backend.domain import Priority, Urgency, priority_now
from ml_backend.engines.flow_cache import FlowCache
from ml_backend.engines.flow_field import FlowField


def field(urgency: Urgency = Priority.BATCH, edge: int = 10) -> FlowField:
    return FlowField(
        flows=np.zeros((2, edge, edge), np.float32),
        cell_probability=np.zeros((edge, edge), np.float32),
        steps=200,
        diameter=None,
    )


def get(
    cache: FlowCache,
    key: str,
    compute: Callable[[Urgency], FlowField] = field,
    priority: Urgency = Priority.BATCH,
) -> FlowField:
    return cache.get(key, compute, priority=priority)


def test_a_kept_field_is_not_computed_again() -> None:
    cache = FlowCache(10_000)
    first = get(cache, "a", field)

    again = get(cache, "a", lambda _: pytest.fail("computed again"))

    assert again is first


def test_the_least_recently_used_field_makes_room() -> None:
    cache = FlowCache(3 * field().size)
    kept = {key: get(cache, key, field) for key in "abc"}
    get(cache, "a", field)

    get(cache, "d", field)

    assert get(cache, "a", field) is kept["a"]
    assert get(cache, "b", field) is not kept["b"]
    assert cache.size == 3 * field().size


def test_a_field_larger_than_the_cache_is_passed_on_and_not_kept() -> None:
    cache = FlowCache(100)

    assert get(cache, "a", field).size > 100

    assert cache.size == 0


def test_requests_at_the_same_time_share_one_computation() -> None:
    cache = FlowCache(10_000)
    started, finish, computed = threading.Event(), threading.Event(), []

    def slowly(urgency: Urgency) -> FlowField:
        started.set()
        finish.wait(10)
        computed.append(1)
        return field()

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(get, cache, "a", slowly)
        started.wait(10)
        others = [pool.submit(get, cache, "a", slowly) for _ in range(3)]
        finish.set()
        results = {id(future.result(10)) for future in [first, *others]}

    assert len(results) == len(computed) == 1


def test_it_counts_what_it_was_asked_for() -> None:
    cache = FlowCache(10_000)

    for key in ("a", "b", "a", "a"):
        get(cache, key)

    assert cache.asked == (2, 2)


def test_a_failed_computation_is_tried_again() -> None:
    cache = FlowCache(10_000)

    with pytest.raises(ZeroDivisionError):
        get(cache, "a", lambda _: 1 // 0)

    assert get(cache, "a", field).steps == 200


def test_a_computation_is_as_urgent_as_whoever_waits_for_it() -> None:
    cache = FlowCache(10_000)
    urgencies: list[Urgency] = []
    person = Priority.BACKGROUND
    started, finish = threading.Event(), threading.Event()

    def slowly(urgency: Urgency) -> FlowField:
        urgencies.append(urgency)
        started.set()
        finish.wait(10)
        return field()

    def changing() -> Priority:
        joined.set()
        return person

    joined = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(get, cache, "a", slowly, Priority.BATCH)
        started.wait(10)
        alone = priority_now(urgencies[0])
        second = pool.submit(get, cache, "a", slowly, changing)
        while not joined.is_set():
            in_no_hurry = priority_now(urgencies[0])
        person = Priority.INTERACTIVE
        in_a_hurry = priority_now(urgencies[0])
        finish.set()
        assert second.result(10) is first.result(10)

    assert [alone, in_no_hurry, in_a_hurry] == [
        Priority.BATCH,
        Priority.BATCH,
        Priority.INTERACTIVE,
    ]


def test_fields_that_are_dropped_make_room_and_are_computed_again() -> None:
    cache = FlowCache(10_000)
    kept = {key: get(cache, key, field) for key in ("old 1", "new 1", "old 2")}

    cache.drop(lambda key: str(key).startswith("old"))

    assert cache.size == field().size
    assert get(cache, "new 1", field) is kept["new 1"]
    assert get(cache, "old 1", field) is not kept["old 1"]
