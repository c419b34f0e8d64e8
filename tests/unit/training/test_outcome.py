"""Which error means what to a person."""

from __future__ import annotations

import errno

import pytest

from ml_backend.errors import ImageFetchError, OutOfMemory, SessionLost, StoreError
from ml_backend.learning import SessionState
from ml_backend.training.interruption import Interrupted, Interruption, Why
from ml_backend.training.outcome import Outcome, guarded

DONE = Outcome(state=SessionState.COMPLETED, message="Done.", version="v1")


def outcome_of(error: BaseException, interruption: Interruption | None = None) -> Outcome:
    def work() -> Outcome:
        raise error

    return guarded(work, interruption or Interruption())


def test_what_ends_well_is_left_as_it_is() -> None:
    assert guarded(lambda: DONE, Interruption()) is DONE


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/d/last.safetensors"), "disk is full"),
        (OSError(errno.EACCES, "Permission denied", "/d/x"), "Permission denied"),
        (OutOfMemory(), "model_batch_size"),
        (MemoryError(), "memory"),
        (ImageFetchError("Image 3 could not be downloaded."), "Image 3"),
        (ValueError("negative"), "ValueError: negative"),
    ],
)
def test_an_error_is_a_failure_with_a_sentence_that_says_what_to_do(
    error: Exception, words: str
) -> None:
    outcome = outcome_of(error)

    assert outcome.state is SessionState.FAILED
    assert words in outcome.message
    assert outcome.message.endswith((".", "!"))


@pytest.mark.parametrize("error", [SessionLost(), StoreError()])
def test_records_that_cannot_be_written_are_no_end(error: StoreError) -> None:
    with pytest.raises(StoreError):
        outcome_of(error)


def test_a_person_who_stops_it_ends_it_as_stopped() -> None:
    interruption = Interruption()
    interruption.why = Why.PERSON

    assert outcome_of(Interrupted(), interruption).state is SessionState.STOPPED


def test_a_process_that_has_to_go_is_no_end() -> None:
    interruption = Interruption()
    interruption.why = Why.PROCESS

    with pytest.raises(Interrupted):
        outcome_of(Interrupted(), interruption)
