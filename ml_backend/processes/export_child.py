"""The process that a model is exported in: started and ended by an engine.

A process of its own, because an export computes for minutes on the CPU, runs what it has packed,
and must not take an engine down with it. It reads the request from a folder and leaves the file,
and what is to be said of it, there.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from ml_backend.errors import BackendError, EngineError, error_of
from ml_backend.processes.training_child import describe_end

COMMAND: Final = "export-request"
MODEL_FILE: Final = "model.txt"  # the name that was asked for
BODY_FILE: Final = "request.json"
ANSWER_FILE: Final = "answer.json"
LONGEST_S: Final = 3600.0
LOOK_EVERY_S: Final = 0.2

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """A file that an export has left."""

    path: Path
    name: str  # that it should have elsewhere
    media_type: str
    notes: tuple[str, ...]  # a sentence each

    def to_json(self) -> dict[str, Any]:
        """Return what `read_answer` makes the same of."""
        return {
            "path": str(self.path),
            "name": self.name,
            "media_type": self.media_type,
            "notes": list(self.notes),
        }


def export_in_child(
    model: str,
    body: bytes,
    folder: Path,
    *,
    should_stop: Callable[[], bool],
    program: Sequence[str] = ("-m", "ml_backend"),
    longest_s: float = LONGEST_S,
) -> ExportedFile:
    """Return the file that a request asks for, written to `folder` by a process of its own.

    Args:
        model: That is asked for.
        body: What is asked for, as `service.export_request` reads it.
        folder: Empty; the caller removes it.
        should_stop: Whether nobody waits for it any more; asked several times a second.
        program: What Python runs.
        longest_s: Seconds after which it is given up.

    Raises:
        BackendError: what the export was refused with, of the same class.
        EngineError: the process broke down, or took too long.
    """
    (folder / MODEL_FILE).write_text(model, encoding="utf-8")
    (folder / BODY_FILE).write_bytes(body)
    read_fd, write_fd = os.pipe()  # only the read end is inherited: it ends with this process
    try:
        process = subprocess.Popen(
            [sys.executable, *program, COMMAND, str(folder), "--lifeline-fd", str(read_fd)],
            pass_fds=(read_fd,),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        os.close(write_fd)
        raise EngineError(f"No process can be started for the export: {error.strerror}.") from error
    finally:
        os.close(read_fd)
    try:
        code = _wait(process, should_stop, longest_s)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # with whatever it has started
        process.wait()
        os.close(write_fd)
    return read_answer(folder, code)


def _wait(
    process: subprocess.Popen[bytes], should_stop: Callable[[], bool], longest_s: float
) -> int:
    deadline = time.monotonic() + longest_s
    while time.monotonic() < deadline:
        try:
            return process.wait(LOOK_EVERY_S)
        except subprocess.TimeoutExpired:
            if should_stop():
                raise EngineError("The export was given up: nobody waits for it.") from None
    raise EngineError(
        f"The export took over {longest_s / 60:.0f} minutes and was given up; try again when this "
        "machine has less to do."
    )


def write_answer(folder: Path, answer: ExportedFile | BackendError) -> None:
    """Leave what came of an export in `folder`."""
    if isinstance(answer, ExportedFile):
        told = answer.to_json()
    else:
        told = {"code": answer.code, "message": answer.message}
    (folder / ANSWER_FILE).write_text(json.dumps(told), encoding="utf-8")


def read_answer(folder: Path, code: int) -> ExportedFile:
    """Return what a process has left that ended with `code`.

    Raises:
        BackendError: what it was refused with.
        EngineError: it has left nothing.
    """
    try:
        told = json.loads((folder / ANSWER_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        told = None
    if not isinstance(told, dict):
        log.error("export broke down", end=describe_end(code))
        raise EngineError(
            f"The export broke down ({describe_end(code)}); the engine's log says more."
        )
    if "path" not in told:
        error = error_of(str(told.get("code")), str(told.get("message")))
        raise error or EngineError(str(told.get("message")))
    return ExportedFile(
        path=Path(told["path"]),
        name=told["name"],
        media_type=told["media_type"],
        notes=tuple(told["notes"]),
    )
