"""The supervisor with children that are only numbers."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ml_backend.processes.supervisor import (
    EXIT_SETTINGS,
    LONGEST_PAUSE_S,
    ChildSpec,
    Supervisor,
    open_listener,
    pause_before_restart,
)


class FakeProcess:
    """A process that ends when told to."""

    def __init__(self) -> None:
        self.pid = 2**22 + 1  # no such process group
        self.code: int | None = None

    def poll(self) -> int | None:
        return self.code


class FakeSystem:
    """Starts fake processes at a fake time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.started: list[tuple[float, str]] = []
        self.running: dict[str, FakeProcess] = {}

    def start(self, spec: ChildSpec, lifeline_fd: int) -> FakeProcess:
        self.started.append((self.now, spec.name))
        self.running[spec.name] = FakeProcess()
        return self.running[spec.name]

    def supervisor(self, *names: str) -> Supervisor:
        specs = [ChildSpec(name=name, arguments=[name]) for name in names]
        return Supervisor(specs, start=self.start, clock=lambda: self.now)


@pytest.fixture
def system() -> FakeSystem:
    return FakeSystem()


def test_every_child_is_started_once(system: FakeSystem) -> None:
    supervisor = system.supervisor("engine", "web")

    supervisor.tend()
    supervisor.tend()

    assert [name for _, name in system.started] == ["engine", "web"]


def test_a_crashed_child_starts_again_after_growing_pauses(system: FakeSystem) -> None:
    supervisor = system.supervisor("engine")
    for tick in range(100):
        system.now = tick * 0.1
        supervisor.tend()
        system.running["engine"].code = -9

    times = [time for time, _ in system.started]
    pauses = [round(later - earlier, 1) for earlier, later in pairwise(times)]

    assert pauses == sorted(pauses)
    assert pauses[-1] > 2 * pauses[0]
    assert not supervisor.stopping


def test_a_crash_of_one_child_leaves_the_others_alone(system: FakeSystem) -> None:
    supervisor = system.supervisor("engine", "web")
    supervisor.tend()
    system.running["engine"].code = 1

    for tick in range(100):
        system.now = tick * 0.1
        supervisor.tend()

    assert [name for _, name in system.started].count("web") == 1
    assert [name for _, name in system.started].count("engine") == 2


def test_a_child_that_ran_for_long_starts_again_soon(system: FakeSystem) -> None:
    supervisor = system.supervisor("engine")
    supervisor.tend()
    for crash in range(1, 4):
        system.now = crash * 1000.0
        system.running["engine"].code = 1
        supervisor.tend()
        system.now += 0.6
        supervisor.tend()

    assert [time for time, _ in system.started] == [0.0, 1000.6, 2000.6, 3000.6]


def test_wrong_settings_stop_everything_instead_of_repeating_the_message(
    system: FakeSystem,
) -> None:
    supervisor = system.supervisor("engine", "web")
    supervisor.tend()
    system.running["engine"].code = EXIT_SETTINGS

    supervisor.tend()

    assert supervisor.stopping


def test_pauses_are_bounded() -> None:
    assert pause_before_restart(1) == 0.5
    assert pause_before_restart(50) == LONGEST_PAUSE_S


def test_two_listeners_cannot_share_a_port() -> None:
    first = open_listener("127.0.0.1", 0)

    with first, pytest.raises(OSError, match="in use"):
        open_listener("127.0.0.1", first.getsockname()[1])
