"""How much of a machine a training takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ml_backend.processes.manners import NICENESS, own_threads, processors

ROOT = Path(__file__).resolve().parents[3]
CODE = (
    "import os, torch; from ml_backend.processes.manners import take_second_place;"
    "before = os.nice(0);"
    "take_second_place(torch.device('cpu'), threads=1, gpu_share=0.5);"
    "print(os.nice(0) - before, torch.get_num_threads())"
)


@pytest.mark.parametrize(("available", "taken"), [(1, 1), (2, 2), (3, 2), (64, 63)])
def test_a_large_machine_keeps_a_processor_back(available: int, taken: int) -> None:
    assert own_threads(available) == taken


def test_this_machine_has_processors() -> None:
    assert processors() >= 1


@pytest.mark.skipif(sys.platform == "win32", reason="has no nice")
@pytest.mark.unhurried
def test_a_training_on_the_processor_steps_back_behind_everything_else() -> None:
    told = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert told.stdout.splitlines()[-1].split() == [str(NICENESS), "1"]
