"""Runs `bioimageio test` in a process of its own, without our package and without a network.

    python -I package_check_program.py ARCHIVE REPORT.json

Started by `package_check`. What the archive holds is run here, so a crash takes nobody else down;
`ml_backend` cannot be imported, so that what passes runs on machines that have never seen it; and
no address in the description is asked, whoever wrote it there.
"""

from __future__ import annotations

import socket
import sys
from typing import Any, NoReturn

OURS = "ml_backend"


def refuse(*_: Any, **__: Any) -> NoReturn:
    """Refuse to look for another machine."""
    raise OSError("this test asks no other machine")


def main(archive: str, report: str) -> None:
    """Test the archive; ends the process with 0 if it passed."""
    sys.modules[OURS] = None  # type: ignore[assignment]  # importing it fails from here on
    socket.getaddrinfo = refuse
    socket.socket.connect = refuse  # type: ignore[method-assign]

    from bioimageio.core.__main__ import main as bioimageio

    sys.argv = ["bioimageio", "test", archive, "--summary", report, "--device", "cpu"]
    bioimageio()


if __name__ == "__main__":
    main(*sys.argv[1:3])
