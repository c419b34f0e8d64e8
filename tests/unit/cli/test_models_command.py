"""`ml-backend models`: lists and files, with a server of our own instead of Cellpose's hub."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tifffile
from click.testing import Result
from typer.testing import CliRunner

from ml_backend.cli import app
from ml_backend.imaging.samples import fluorescent_nuclei
from ml_backend.model_files.known import BuiltIn, built_in_networks
from tests.image_server import ImageServer, Reply

WEIGHTS = b"weights" * 1000


@pytest.fixture
def hub() -> Iterator[ImageServer]:
    """Yield a hub that publishes one model."""
    with ImageServer() as server:
        server.routes["/hub/cpsam_v2"] = Reply(body=WEIGHTS)
        yield server


def run(folder: Path, *arguments: str) -> Result:
    """Run `ml-backend models` with a folder for weights and one for records."""
    environment = {
        "CELLPOSE_LOCAL_MODELS_PATH": str(folder),
        "DATA_DIR": str(folder.parent / "data"),
        "COLUMNS": "300",
        "NO_PROXY": "*",
        "LOG_LEVEL": "ERROR",
        "DEVICE": "cpu",
    }
    return CliRunner(env=environment).invoke(app, ["models", *arguments])


def row(listed: Result, name: str) -> str:
    """Return the line about a model."""
    return next(line for line in listed.stdout.splitlines() if line.split()[:1] == [name])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder for weights."""
    folder = tmp_path / "cellpose"
    folder.mkdir()
    return folder


def test_every_model_is_listed_with_its_licence_and_whether_its_weights_are_there(
    folder: Path,
) -> None:
    (folder / "cpsam").write_bytes(WEIGHTS)

    listed = run(folder, "list")
    shown = run(folder, "show", "cpsam")

    assert listed.exit_code == 0, listed.output
    assert "CC0" in row(listed, "nuclei-1")
    assert "CC-BY-NC" in row(listed, "cpsam")
    assert "missing" not in row(listed, "cpsam")
    assert "models download cpsam" in shown.stdout
    assert "missing; `ml-backend models fetch cpsam_v2`" in row(listed, "cpsam_v2")


def test_what_is_fetched_says_its_licence_and_lies_where_it_is_looked_for(
    tmp_path: Path, hub: ImageServer
) -> None:
    done = run(tmp_path / "new", "fetch", "cpsam_v2", "--hub", f"{hub.origin}/hub")

    assert done.exit_code == 0, done.output
    assert "CC-BY-NC" in done.stderr
    assert (tmp_path / "new" / "cpsam_v2").read_bytes() == WEIGHTS
    assert "missing" not in row(run(tmp_path / "new", "list"), "cpsam_v2")


def test_weights_that_are_there_are_not_fetched_again(tmp_path: Path, hub: ImageServer) -> None:
    for _ in range(2):
        done = run(tmp_path / "new", "fetch", "cpsam_v2", "--hub", f"{hub.origin}/hub/")

    assert done.exit_code == 0
    assert hub.paths() == ["/hub/cpsam_v2"]


@pytest.mark.parametrize(
    ("name", "path", "reason"),
    [
        ("cpsam", "/hub", "could not be downloaded from http://127.0.0.1"),  # 404
        ("cpsam_v2", "/cut", "could not be downloaded from http://127.0.0.1"),
        ("cells-9", "/hub", "none of Cellpose's models"),
    ],
)
def test_what_cannot_be_fetched_is_a_sentence_and_leaves_nothing_behind(
    tmp_path: Path, hub: ImageServer, name: str, path: str, reason: str
) -> None:
    hub.routes["/cut/cpsam_v2"] = Reply(body=WEIGHTS, promised=2 * len(WEIGHTS))

    failed = run(tmp_path / "new", "fetch", name, "--hub", hub.origin + path)

    assert failed.exit_code == 78
    assert reason in failed.stderr
    assert list((tmp_path / "new").glob("*")) == []


def test_a_hub_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    failed = run(tmp_path / "new", "fetch", "cpsam_v2", "--hub", "http://127.0.0.1:9/")

    assert failed.exit_code == 78
    assert "copy the file to" in failed.stderr


# Files of one's own


def built_in() -> BuiltIn:
    """Return the network that is in the package."""
    return built_in_networks()[0]


def test_weights_are_handed_out_whole_and_never_over_a_file(folder: Path, tmp_path: Path) -> None:
    done = run(folder, "download", "nuclei-1", "--output", str(tmp_path / "mine.safetensors"))
    again = run(folder, "download", "nuclei-1", "--output", str(tmp_path / "mine.safetensors"))
    into_folder = run(folder, "download", "nuclei-1", "--output", str(tmp_path))

    assert done.exit_code == into_folder.exit_code == 0, done.output
    assert built_in().sha256 in done.stdout.replace("\n", "")
    assert (tmp_path / "mine.safetensors").read_bytes() == built_in().path.read_bytes()
    assert (tmp_path / "nuclei-1.safetensors").is_file()
    assert "is there already" in again.stderr


def test_weights_that_are_not_here_cannot_be_handed_out(folder: Path, tmp_path: Path) -> None:
    failed = run(folder, "download", "cpsam", "--output", str(tmp_path / "x"))

    assert failed.exit_code == 1
    assert "models fetch cpsam" in failed.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.unhurried
def test_a_checkpoint_is_taken_in_tried_and_listed(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "My Cells.safetensors"
    shutil.copyfile(built_in().path, mine)

    done = run(folder, "upload", str(mine), "--licence", "CC-BY-4.0", "--diameter", "25")
    taken = run(folder, "upload", str(mine))
    shown = run(folder, "show", "my-cells").stdout

    assert done.exit_code == 0, done.output
    assert "my-cells can be used by name now" in done.stdout
    assert row(run(folder, "list"), "my-cells").split()[1:3] == ["uploaded", "CC-BY-4.0"]
    assert "25.0 px" in shown
    assert "Uploaded by A person." in shown
    assert (taken.exit_code, "choose another name" in taken.stderr) == (1, True)


@pytest.mark.unhurried
def test_an_uploaded_model_predicts_by_its_name(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.safetensors"
    shutil.copyfile(built_in().path, mine)
    run(folder, "upload", str(mine), "--diameter", "22")
    sample, _ = fluorescent_nuclei(1, shape=(96, 96), count=6)
    tifffile.imwrite(tmp_path / "nuclei.tif", sample)
    environment = {"DATA_DIR": str(tmp_path / "data"), "DEVICE": "cpu", "LOG_LEVEL": "ERROR"}
    predict = ["predict", str(tmp_path / "nuclei.tif"), "--output", str(tmp_path), "--model"]

    done = CliRunner(env=environment).invoke(app, [*predict, "mine"])
    qualified = CliRunner(env=environment).invoke(app, [*predict, "uploads/mine"])
    run(folder, "archive", "mine")
    away = CliRunner(env=environment).invoke(app, [*predict, "mine"])
    unknown = CliRunner(env=environment).invoke(app, [*predict, "yours"])

    assert (done.exit_code, qualified.exit_code) == (0, 0), done.output
    assert tifffile.imread(tmp_path / "nuclei_masks.tif").max() >= 3
    assert (away.exit_code, unknown.exit_code) == (78, 78)
    assert "was put away" in away.stderr
    assert "There is no model or file 'yours'" in unknown.stderr


@pytest.mark.parametrize(
    ("content", "name", "code", "reason"),
    [
        (b"PK\x03\x04", "cells", 78, "neither safetensors nor"),
        (b"not weights at all", "cells", 78, "neither safetensors nor"),
        (b"", "../cells", 1, "cannot be called '../cells'"),
        (b"", "Cells", 1, "such as 'cells'"),
        (b"", "nuclei-1", 1, "already"),
    ],
)
def test_what_is_no_checkpoint_is_a_sentence(
    folder: Path, tmp_path: Path, content: bytes, name: str, code: int, reason: str
) -> None:
    file = tmp_path / "cells.pt"
    file.write_bytes(content)

    failed = run(folder, "upload", str(file), "--name", name)

    assert failed.exit_code == code, failed.output
    assert reason in failed.stderr
    assert "cells" not in [line.split()[0] for line in run(folder, "list").stdout.splitlines()]
