"""The life of the reference fine-tuning service, through our client, on a backend as people run it.

The images are fluorescent nuclei of ../shared/data where they are here, else generated ones.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from ml_backend.imaging.samples import fluorescent_nuclei
from tests.running_backend import RunningBackend, running_backend
from tests.shared_data import SHARED
from tests.terminal import Terminal
from tools.replay_reference_service import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

NUCLEI = SHARED / "bbbc039_nuclei16"
EDGE = 256  # pixels
TRAINING, TEST = 4, 1  # images


def pictures() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield 16-bit images and their masks."""
    if not NUCLEI.is_dir():
        for seed in range(TRAINING + TEST):
            yield fluorescent_nuclei(seed, shape=(EDGE, EDGE), count=25)
        return
    for path in sorted((NUCLEI / "images").glob("*.tif"))[: TRAINING + TEST]:
        masks = cv2.imread(str(NUCLEI / "masks" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        assert masks is not None
        yield tifffile.imread(path)[:EDGE, :EDGE], masks[:EDGE, :EDGE]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of images and masks for training and for a test."""
    folder = tmp_path_factory.mktemp("dataset")
    for name in ("images", "masks", "test/images", "test/masks"):
        (folder / name).mkdir(parents=True)
    for number, (image, masks) in enumerate(pictures()):
        within = folder if number < TRAINING else folder / "test"
        tifffile.imwrite(within / "images" / f"{number}.tif", image)
        cv2.imwrite(str(within / "masks" / f"{number}.png"), masks.astype(np.uint16))
    return folder


@pytest.fixture(scope="module")
def backend(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBackend]:
    """Yield a backend that may read the dataset."""
    folder = tmp_path_factory.mktemp("reference-life")
    settings = {"DATA_ROOTS": str(dataset), "DEVICE": "cpu"}
    with running_backend(folder, settings) as backend:
        backend.wait_until_up()
        yield backend


@pytest.fixture(scope="module")
def tokens(backend: RunningBackend, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return files with the tokens of two people who may train."""
    terminal = Terminal(tmp_path_factory.mktemp("tokens"))
    made = [
        terminal.type(
            f"ml-backend tokens create {name} --role train", DATA_DIR=str(backend.data_dir)
        )
        for name in ("anna", "otto")
    ]
    assert [one.returncode for one in made] == [0, 0], made[0].stderr
    files = terminal.folder / "anna", terminal.folder / "otto"
    for file, one in zip(files, made, strict=True):
        file.write_text(one.stdout)
    return files


def replay(*options: str) -> subprocess.CompletedProcess[str]:
    """Run the script as a person would."""
    script = ROOT / "tools" / "replay_reference_service.py"
    return subprocess.run(
        [sys.executable, str(script), *options], capture_output=True, text=True, check=False
    )


def test_the_whole_life_is_lived(
    backend: RunningBackend,
    dataset: Path,
    tokens: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    done = replay(
        *("--url", backend.url, "--token-file", str(tokens[0])),
        *("--other-token-file", str(tokens[1])),
        *("--dataset", str(dataset), "--epochs", "2", "--samples", "8"),
        *("--test-images", "test/images/*.tif", "--test-masks", "test/masks/*.png"),
    )

    with capsys.disabled():
        print(f"\n{done.stdout}")
    assert done.returncode == 0, f"{done.stderr}\n{backend.log.read_text()[-4000:]}"
    assert "NOT CHECKED" not in done.stdout
    for call in (
        *("get_load", "list_training_sessions", "start_training", "debug_task_info"),
        *("get_training_status", "learning-stats", "stop_training", "restart_training"),
        *("list_models_by_dataset", "infer", "export_model", "delete_training_session"),
    ):
        assert call in done.stdout


def test_the_first_thing_that_is_not_as_it_should_be_ends_it(
    backend: RunningBackend, dataset: Path, tokens: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "wrong").write_text("mlb_0_wrong")
    refused = replay(
        *("--url", backend.url, "--token-file", str(tmp_path / "wrong")),
        *("--dataset", str(dataset)),
    )
    outside = replay(
        *("--url", backend.url, "--token-file", str(tokens[0])),
        *("--dataset", str(dataset.parent)),
        *("--images", f"{dataset.name}/images/*.tif", "--masks", f"{dataset.name}/masks/*.png"),
    )

    for done, reason in ((refused, "token"), (outside, "DATA_ROOTS")):
        assert done.returncode == 1
        assert reason in done.stderr
        assert "Traceback" not in done.stderr
