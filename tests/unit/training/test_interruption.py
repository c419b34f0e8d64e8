"""Signals to a real process, sent by itself."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from ml_backend.training.interruption import Interrupted, Interruption, Why

HEARD_WITHIN_S = 10.0


@pytest.fixture
def interruption() -> Iterator[Interruption]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    listening = Interruption()
    listening.listen()
    yield listening
    for number, handler in before.items():
        signal.signal(number, handler)


def wait_for(interruption: Interruption) -> None:
    deadline = time.monotonic() + HEARD_WITHIN_S
    while not interruption.requested and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_signal_breaks_off_what_is_waited_for(interruption: Interruption) -> None:
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()

    with pytest.raises(Interrupted):
        threading.Event().wait(HEARD_WITHIN_S)

    assert interruption.why is Why.PROCESS


def test_a_person_breaks_off_what_is_waited_for(interruption: Interruption) -> None:
    threading.Timer(0.05, interruption.person_asks).start()

    with pytest.raises(Interrupted):
        threading.Event().wait(HEARD_WITHIN_S)

    assert interruption.why is Why.PERSON


def test_a_shielded_part_ends_by_itself(interruption: Interruption) -> None:
    with interruption.shielded():
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(interruption)

    assert interruption.requested
    with pytest.raises(Interrupted):
        interruption.check()


def test_the_first_wish_counts(interruption: Interruption) -> None:
    with interruption.shielded():
        interruption.person_asks()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)

    assert interruption.why is Why.PERSON


def test_what_ends_soon_is_given_a_little_time(interruption: Interruption) -> None:
    with interruption.shielded():
        interruption.person_asks()
        time.sleep(0.02)

    interruption.check(patience_s=60)
    with pytest.raises(Interrupted):
        interruption.check(patience_s=0.01)


def test_nothing_happens_unasked(interruption: Interruption) -> None:
    interruption.check()

    assert not interruption.requested


def test_no_ordinary_handler_swallows_it(interruption: Interruption) -> None:
    def swallowing() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            wait_for(interruption)
        except Exception:
            pytest.fail("swallowed")

    with pytest.raises(Interrupted):
        swallowing()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_takes_a_signal_for_a_persons_wish(number: signal.Signals) -> None:
    listening, told = Interruption(), []
    before = signal.getsignal(number)

    with listening.listening_to_person(lambda: told.append(1)):
        with listening.shielded():
            for _ in range(3):  # people press Ctrl-C again
                os.kill(os.getpid(), number)
                wait_for(listening)
        with pytest.raises(Interrupted):
            listening.check()

    assert listening.why is Why.PERSON
    assert told == [1]
    assert signal.getsignal(number) == before
