"""What went wrong in a person's own code, in a sentence that says where."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import structlog

from ml_backend.errors import BackendError, ToolkitError

_LONGEST = 300  # characters of an error's own text

_T = TypeVar("_T")

log = structlog.get_logger(__name__)


def describe(error: BaseException, folder: Path) -> str:
    """Return an error with the last place in the files of `folder` that it went through.

    Args:
        error: Whatever was raised.
        folder: Of the class's own files, resolved.
    """
    text = " ".join(str(error).split())[:_LONGEST]
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file.is_relative_to(folder) and "site-packages" not in file.parts:
            return f"{what}; {file.name}, line {frame.lineno}"
    return what


def guarded(what: str, folder: Path, call: Callable[[], _T]) -> _T:
    """Return what a person's own code returns.

    Args:
        what: Is called, for the sentence: "predict() of NewModel".
        folder: Of its files.
        call: It.

    Raises:
        ToolkitError: it failed; the traceback is logged for LOG_LEVEL=DEBUG.
        BackendError: an error of ours that it passed on: a file could not be fetched.
    """
    try:
        return call()
    except BackendError:
        raise
    except (Exception, SystemExit) as error:
        log.debug("traceback of a toolkit class", what=what, exc_info=error)
        raise ToolkitError(
            f"{what} failed ({describe(error, folder)}); mend it there. LOG_LEVEL=DEBUG shows the "
            "traceback."
        ) from error
