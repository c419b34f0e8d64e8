"""`ml-backend train` on phase contrast, which the built-in network has never seen."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as PillowImage

from ml_backend.imaging.matching import match_instances
from tests.docs_commands import ROOT, SETTINGS
from tests.shared_data import SHARED, needs_data
from tests.terminal import Terminal

pytestmark = [pytest.mark.slow, pytest.mark.data, needs_data]

PHASE = SHARED / "usiigaci_phase"
TESTED = 2  # images, which nothing is learned from
OPTIONS = "--model nuclei-1 --epochs 15 --validation-interval 15"
WITHIN_S = 3600.0


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    """Return a shell beside a Cellpose folder with `train` and `test` in it."""
    terminal = Terminal(tmp_path)
    for number, image in enumerate(sorted((PHASE / "images").iterdir())):
        folder = tmp_path / "cells" / ("test" if number < TESTED else "train")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, folder / image.name)
        masks = PHASE / "masks" / f"{image.stem}.png"
        shutil.copy(masks, folder / f"{image.stem}_masks.png")
    return terminal


def run(terminal: Terminal, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **{name: value for name, value in terminal.environment.items() if name not in SETTINGS},
        "DATA_DIR": str(terminal.folder / "data"),
        "DEVICE": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.run(
        [sys.executable, "-m", "ml_backend", *arguments],
        cwd=terminal.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )


def precision(terminal: Terminal, model: str) -> float:
    """Return the mean AP at 0.5 of what `ml-backend predict` finds on the test images."""
    images = sorted(
        path for path in (terminal.folder / "cells" / "test").iterdir() if "_masks" not in path.name
    )
    done = run(
        terminal, "predict", *map(str, images), "--model", model, "--output", f"found-{model}"
    )
    assert done.returncode == 0, done.stderr
    found = []
    for path in images:
        with PillowImage.open(path.with_name(f"{path.stem}_masks.png")) as picture:
            truth = np.asarray(picture).astype(np.int32)
        masks = tifffile.imread(terminal.folder / f"found-{model}" / f"{path.stem}_masks.tif")
        (matching,) = match_instances(truth, masks.astype(np.int32), thresholds=(0.5,))
        found.append(matching.average_precision)
    return sum(found) / len(found)


def test_a_network_that_learns_from_four_images_finds_more_on_two_others(
    terminal: Terminal,
) -> None:
    done = run(terminal, "train", "cells/train", "--test", "cells/test", *OPTIONS.split())
    assert done.returncode == 0, done.stderr
    (name,) = set(re.findall(r"--model (nuclei-1-d\d+-v\d+)", done.stdout))

    before, after = precision(terminal, "nuclei-1"), precision(terminal, name)

    assert after > before + 0.2, done.stdout
    told = " ".join(done.stdout.split())
    assert f"before {before:.4f}" in told
    assert f"after {after:.4f}" in told
