"""What came of a session, and which error means what to a person."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from ml_backend.errors import BackendError, OutOfMemory, StoreError
from ml_backend.learning import SessionState
from ml_backend.training.interruption import Interrupted, Interruption, Why

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a session ends."""

    state: SessionState  # COMPLETED, FAILED or STOPPED
    message: str  # for a person: what came of it, or why it failed
    version: str | None = None  # name of the version it made


def guarded(work: Callable[[], Outcome], interruption: Interruption) -> Outcome:
    """Return what came of `work`, also when that is an error or a person's wish to stop.

    Raises:
        Interrupted: this process has to go; the session goes on in another.
        SessionLost: another process has it.
        StoreError: the records cannot be written; another try may do.
    """
    try:
        return work()
    except StoreError:
        raise
    except Interrupted:
        if interruption.why is not Why.PERSON:
            raise
        return stopped()
    except Exception as error:
        if not isinstance(error, BackendError):
            log.exception("session failed")
        return failure_of(error)


def stopped() -> Outcome:
    """Return the end of a session that a person stopped."""
    return Outcome(
        state=SessionState.STOPPED,
        message="It was stopped by a person; resumed, it goes on from its last checkpoint.",
    )


def failed(message: str) -> Outcome:
    """Return the end of a session that could not do its work."""
    return Outcome(state=SessionState.FAILED, message=message)


def failure_of(error: Exception) -> Outcome:
    """Return the end that an error means; its sentence says what to do."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return failed(
            "The disk is full, or this user may not use more of it: the session could not write "
            f"{error.filename or 'its files'}; free some space in DATA_DIR and resume the session."
        )
    if isinstance(error, OutOfMemory | MemoryError):
        return failed(
            f"The memory does not suffice for this training ({str(error) or 'no more to be had'}); "
            "set a smaller model_batch_size, train adapters only (model_lora_rank) or use a "
            "machine with more memory, and resume the session."
        )
    if isinstance(error, BackendError):
        return failed(error.message)
    if isinstance(error, OSError):
        return failed(
            f"A file could not be read or written ({error}); mend that and resume the session."
        )
    return failed(
        f"Something unexpected happened ({type(error).__name__}: {error}); the trainer's log has "
        "the details. Resume the session to try again."
    )
