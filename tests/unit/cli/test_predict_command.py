"""`ml-backend predict` with options that choose the network and what counts as an object."""

from __future__ import annotations

from subprocess import CompletedProcess

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from ml_backend.cli import app
from ml_backend.imaging.samples import fluorescent_nuclei
from tests.infer_files import READERS
from tests.terminal import Terminal

pytestmark = pytest.mark.unhurried


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """Return a shell beside a picture of six nuclei, with its masks in `default/`."""
    terminal = Terminal(tmp_path_factory.mktemp("predict"))
    sample, _ = fluorescent_nuclei(1, shape=(96, 96), count=6)
    tifffile.imwrite(terminal.folder / "nuclei.tif", sample)
    done = predict(terminal, "--model nuclei-1 --output default", model="/nowhere/setting")
    assert done.returncode == 0, done.stderr
    return terminal


def predict(terminal: Terminal, options: str, *, model: str = "auto") -> CompletedProcess[str]:
    """Type `ml-backend predict`, MODEL being `model`."""
    return terminal.type(f"ml-backend predict nuclei.tif {options}", DEVICE="cpu", MODEL=model)


def masks(terminal: Terminal, output: str) -> np.ndarray:
    """Return the label image that was written."""
    return np.asarray(tifffile.imread(terminal.folder / output / "nuclei_masks.tif"))


def test_the_model_of_the_command_is_taken_instead_of_the_setting(terminal: Terminal) -> None:
    assert masks(terminal, "default").max() >= 3  # with a MODEL that is not there


def test_a_model_that_is_not_there_is_a_sentence(terminal: Terminal) -> None:
    done = predict(terminal, "--model /nowhere/option --output absent")

    assert done.returncode != 0
    assert "/nowhere/option" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (terminal.folder / "absent").exists()


def test_a_high_score_threshold_leaves_objects_out(terminal: Terminal) -> None:
    done = predict(terminal, "--score-threshold 1 --output sure")

    assert done.returncode == 0, done.stderr
    assert masks(terminal, "sure").max() < masks(terminal, "default").max()


def test_too_few_iterations_find_other_objects(terminal: Terminal) -> None:
    done = predict(terminal, "--iterations 1 --output hasty")

    assert done.returncode == 0, done.stderr
    assert not np.array_equal(masks(terminal, "hasty"), masks(terminal, "default"))


@pytest.mark.parametrize(
    ("file_format", "name"),
    [
        ("png", "nuclei_masks.png"),
        ("npy", "nuclei_masks.npy"),
        ("roi", "nuclei_rois.zip"),
        ("geojson", "nuclei_masks.geojson"),
        ("coco", "nuclei_coco.json"),
    ],
)
def test_every_format_holds_the_same_masks(terminal: Terminal, file_format: str, name: str) -> None:
    done = predict(terminal, f"--model nuclei-1 --format {file_format} --output {file_format}")

    assert done.returncode == 0, done.stderr
    assert name in done.stdout
    content = (terminal.folder / file_format / name).read_bytes()
    assert np.array_equal(READERS[file_format](content, (96, 96)), masks(terminal, "default"))


def test_flows_are_written_beside_the_masks(terminal: Terminal) -> None:
    done = predict(terminal, "--model nuclei-1 --flows --output flows")

    assert done.returncode == 0, done.stderr
    assert "nuclei_flows_xy.npy" in done.stdout
    assert np.load(terminal.folder / "flows" / "nuclei_flows_xy.npy").shape == (2, 96, 96)
    assert (terminal.folder / "flows" / "nuclei_flows_hsv.png").is_file()


@pytest.mark.parametrize(
    "arguments", [("--score-threshold", "1.5"), ("--iterations", "0"), ("--iterations", "many")]
)
def test_values_out_of_range_are_refused(arguments: tuple[str, str]) -> None:
    done = CliRunner().invoke(app, ["predict", "nuclei.tif", *arguments])

    assert done.exit_code == 2
    assert arguments[0] in done.stderr
