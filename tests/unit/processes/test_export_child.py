"""The process that a model is exported in: what comes of it, and how it ends."""

from __future__ import annotations

import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ml_backend.errors import BackendError, BadRequest, EngineError
from ml_backend.processes.export_child import (
    ExportedFile,
    export_in_child,
    read_answer,
    write_answer,
)

FILE = ExportedFile(
    path=Path("/exports/package.zip"),
    name="nuclei.zip",
    media_type="application/zip",
    notes=("A.",),
)


def export(folder: Path, program: str, **more: Any) -> ExportedFile:
    """Have a program of the test's own do the work; it is started as ours is."""
    script = folder.parent / "program.py"
    script.write_text("import json, os, sys, time\n" + textwrap.dedent(program))
    folder.mkdir(exist_ok=True)
    options = {"should_stop": lambda: False, "program": (str(script),), **more}
    return export_in_child("lebér/nuclei-1", b'{"authors": []}', folder, **options)


def test_what_the_child_leaves_is_returned(tmp_path: Path) -> None:
    done = export(
        tmp_path / "work",
        """
        command, folder, option, fd = sys.argv[1:]
        assert (command, option) == ("export-request", "--lifeline-fd"), sys.argv
        asked = open(f"{folder}/model.txt", encoding="utf-8").read()
        body = open(f"{folder}/request.json").read()
        open(f"{folder}/file", "w").write(asked + body)
        answer = {"path": f"{folder}/file", "name": "n.zip", "media_type": "a/b", "notes": ["A."]}
        json.dump(answer, open(f"{folder}/answer.json", "w"))
        """,
    )

    assert done.path.read_text() == 'lebér/nuclei-1{"authors": []}'
    assert (done.name, done.media_type, done.notes) == ("n.zip", "a/b", ("A.",))


def test_a_refusal_is_raised_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="names its authors"):
        export(
            tmp_path / "work",
            """
            answer = {"code": "request.invalid", "message": "A package names its authors."}
            json.dump(answer, open(f"{sys.argv[2]}/answer.json", "w"))
            """,
        )


def test_a_crash_is_an_error_of_the_engine(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"broke down \(SIGSEGV\)"):
        export(tmp_path / "work", "os.kill(os.getpid(), 11)")


def test_an_export_that_takes_too_long_is_ended_with_all_it_started(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(EngineError, match="given up"):
        export(
            tmp_path / "work",
            """
            if os.fork():
                time.sleep(60)
            while True:
                time.sleep(0.05)
                open(f"{sys.argv[2]}/alive", "a").write("x")
            """,
            longest_s=1.0,
        )
    assert time.monotonic() - started < 20
    alive = tmp_path / "work" / "alive"
    before = alive.stat().st_size if alive.exists() else 0
    time.sleep(0.3)
    assert (alive.stat().st_size if alive.exists() else 0) == before


def test_an_export_that_nobody_waits_for_is_given_up(tmp_path: Path) -> None:
    gone = threading.Event()
    threading.Timer(0.5, gone.set).start()
    with pytest.raises(EngineError, match="nobody waits"):
        export(tmp_path / "work", "time.sleep(60)", should_stop=gone.is_set)


@pytest.mark.parametrize("answer", [FILE, BadRequest("It is wrong."), EngineError("It failed.")])
def test_answers_are_read_as_they_were_written(
    tmp_path: Path, answer: ExportedFile | BackendError
) -> None:
    write_answer(tmp_path, answer)
    if isinstance(answer, ExportedFile):
        assert read_answer(tmp_path, 0) == answer
        return
    with pytest.raises(type(answer), match=answer.message):
        read_answer(tmp_path, 0)
