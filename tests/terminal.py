"""A shell in which lines of the documentation are typed as a person would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.docs_commands import ROOT, SETTINGS


class Terminal:
    """A shell in which `ml-backend` is the program under test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        programs = folder / "bin"
        programs.mkdir()
        program = programs / "ml-backend"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ml_backend "$@"\n')
        program.chmod(0o755)
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in SETTINGS},
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "DATA_DIR": str(folder / "data"),
            "COLUMNS": "200",
        }

    def type(self, line: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a line of the documentation as a person would."""
        return subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env={**self.environment, **settings},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
