"""Versions are swapped under load, and engines die in the middle of it."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_backend.domain import Component
from ml_backend.learning import ActivationState
from tests.running_backend import running_backend
from tests.swap_clients import Backend, Clients, make_network, mixed_up, set_up

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes through /proc"),
]
SWAPS = 6
KILLS = 3
DONE_WITHIN_S = 120.0


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    with running_backend(tmp_path) as running:
        running.wait_until_up()
        yield set_up(running)


def test_swaps_under_load_fail_no_request_and_mix_no_networks(
    backend: Backend, tmp_path: Path
) -> None:
    made_by = {}
    with Clients(backend.running.url, 2) as clients:
        for number in range(SWAPS):
            kind, component = make_network(tmp_path / "versions", number)
            made_by[backend.swap(component)] = kind
            time.sleep(1)
        seen = clients.take()

    assert seen.failed == []
    assert mixed_up(made_by, seen) == []
    assert len(made_by) == SWAPS
    assert len(set(seen.kinds) & set(made_by)) >= SWAPS // 2


def activate(backend: Backend, component: Component) -> int:
    return backend.versions.request(
        backend.project, components={"cells": component}, reason="a test"
    ).id


def wait_until_ended(backend: Backend, number: int) -> ActivationState:
    deadline = time.monotonic() + DONE_WITHIN_S
    while time.monotonic() < deadline:
        (state,) = [a.state for a in backend.versions.history(backend.project) if a.id == number]
        if state in (ActivationState.DONE, ActivationState.FAILED):
            return state
        time.sleep(0.2)
    raise AssertionError(backend.running.log.read_text()[-4000:])


def test_a_swap_whose_engine_is_killed_at_any_moment_is_ended_by_the_next(
    backend: Backend, tmp_path: Path
) -> None:
    chance = random.Random(20)  # noqa: S311 - moments, not secrets
    made_by = {}
    with Clients(backend.running.url, 1) as clients:
        for number in range(KILLS):
            kind, component = make_network(tmp_path / "versions", number)
            asked = activate(backend, component)
            time.sleep(chance.uniform(0.0, 2.0))
            os.kill(backend.running.process_named("engine"), signal.SIGKILL)

            assert wait_until_ended(backend, asked) is ActivationState.DONE
            made_by[str(backend.versions.history(backend.project)[0].release)] = kind
        seen = clients.take()
        deadline = time.monotonic() + DONE_WITHIN_S
        while not clients.answered.kinds and time.monotonic() < deadline:
            time.sleep(0.2)
        last = clients.take()

    # a request that a killed engine had in hand is asked once more, so even those are answered
    assert mixed_up(made_by, seen, last) == []
    assert set(last.kinds) == {list(made_by)[-1]}
    assert last.failed == []
