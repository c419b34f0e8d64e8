"""An application hears that its process is to end before the server does anything."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from ml_backend.web.stopping import told_of_end

SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture
def heard() -> Iterator[list[str]]:
    """Yield what was heard, with a server's handlers in place."""
    heard: list[str] = []

    def handle(_number: int, _frame: FrameType | None) -> None:
        heard.append("server")

    before = {one: signal.signal(one, handle) for one in SIGNALS}
    yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_application_hears_it_first_and_the_server_as_well(
    heard: list[str], number: signal.Signals
) -> None:
    with told_of_end(lambda: heard.append("application")):
        os.kill(os.getpid(), number)
    assert heard == ["application", "server"]


def test_afterwards_the_server_hears_it_alone(heard: list[str]) -> None:
    with told_of_end(lambda: heard.append("application")):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    assert heard == ["server"]


def test_handlers_that_are_none_stay_as_they_are(heard: list[str]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with told_of_end(lambda: heard.append("application")):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_in_another_thread_nothing_is_done(heard: list[str]) -> None:
    def serve() -> None:
        with told_of_end(lambda: heard.append("application")):
            pass
        heard.append("served")

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()
    assert heard == ["served"]
