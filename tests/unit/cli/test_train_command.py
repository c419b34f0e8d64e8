"""`ml-backend train`: what it refuses, what it shows, and how it learns from a folder."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tifffile
from rich.console import Console
from typer.testing import CliRunner

from ml_backend.bootstrap.dataset_training import copy_model, dataset_source
from ml_backend.cli import app
from ml_backend.cli.training_texts import (
    EpochLines,
    curve_lines,
    epoch_line,
    epochs_table,
    sparkline,
    table_of_test,
)
from ml_backend.datasets import DatasetSource
from ml_backend.errors import BackendError, TrainingError
from ml_backend.learning import EpochPoint, Session, SessionState, TrainingParameters
from ml_backend.store.database import Database
from ml_backend.store.sessions import Sessions
from tests.dataset_folders import cellpose_folder, folder_pairs, picture, zipped
from tests.terminal import Terminal

QUICK = "--epochs 2 --samples 4 --batch-size 2 --crop 64 --validation-interval 1"
WITHIN_S = 300.0  # of a busy machine


def shown(table: object) -> str:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


# what a folder means


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("train/images", "train/test", "test"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    return tmp_path


def test_a_folder_is_read_as_it_lies(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    (root / "link").symlink_to(root / "train")

    expected = DatasetSource(root=str(root / "train"))
    assert dataset_source("train") == dataset_source("./train/") == expected
    assert dataset_source("link") == expected


def test_a_test_set_inside_is_named_from_the_folder(root: Path) -> None:
    folder = str(root / "train")

    assert dataset_source(folder, test="test") == DatasetSource(root=folder, test_images="test/")
    assert dataset_source(folder, test=f"{folder}/test", images="i/*.tif", masks="m/*.tif") == (
        DatasetSource(
            root=folder,
            train_images="i/*.tif",
            train_annotations="m/*.tif",
            test_images="test/i/*.tif",
            test_annotations="test/m/*.tif",
        )
    )


def test_a_test_set_beside_makes_their_folder_the_dataset(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    (root / "train" / "test").rmdir()

    assert dataset_source("train", test="test") == DatasetSource(
        root=str(root), train_images="train/", test_images="test/"
    )
    assert dataset_source("train", test="test", images="i", masks="m") == DatasetSource(
        root=str(root),
        train_images="train/i",
        train_annotations="train/m",
        test_images="test/i",
        test_annotations="test/m",
    )


def test_an_address_is_kept_as_it_is() -> None:
    source = dataset_source("https://host/a.zip", test="test", metadata="meta")

    assert source == DatasetSource(
        root="https://host/a.zip", metadata_dir="meta", test_images="test/"
    )


@pytest.mark.parametrize(
    ("directory", "more", "said"),
    [
        ("nowhere", {}, "no folder 'nowhere'"),
        ("train", {"test": "none"}, "no folder 'none'"),
        ("train", {"masks": "m"}, "--masks needs --images"),
        ("train", {"images": "i", "metadata": "m"}, "give one"),
        ("train", {"metadata": "m", "test": "../test"}, "inside of it"),
    ],
)
def test_what_makes_no_sense_is_refused(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    directory: str,
    more: dict[str, str],
    said: str,
) -> None:
    monkeypatch.chdir(root)
    with pytest.raises(BackendError) as refused:
        dataset_source(directory, **more)
    assert said in refused.value.message


def test_a_model_is_copied_once(root: Path) -> None:
    model = root / "models" / "nuclei-1-d1-v1"
    model.mkdir(parents=True)
    (model / "manifest.json").write_text("{}")

    copied = copy_model(model, root / "out")

    assert (copied / "manifest.json").read_text() == "{}"
    assert copied.name == model.name
    with pytest.raises(TrainingError, match="is there already"):
        copy_model(model, root / "out")


# what it says


def points(count: int, *, pixels: bool = False) -> list[EpochPoint]:
    return [
        EpochPoint(
            epoch=epoch,
            step=epoch,
            loss=1 / epoch,
            learning_rate=1e-3,
            precision=(0.5, 0.4, 0.1) if epoch % 10 == 0 else None,
            pixels=(0.9, 0.8, 0.85, 0.74) if pixels and epoch % 10 == 0 else None,
        )
        for epoch in range(1, count + 1)
    ]


def test_a_curve_becomes_a_line_of_blocks() -> None:
    assert sparkline([3, 2, 1]) == "█▅▁"
    assert sparkline([1.0, 1.0]) == "▁▁"
    assert sparkline([float("nan"), 2.0]) == "▁"
    assert sparkline([]) == ""
    assert len(sparkline(list(range(500)))) == 60


def test_a_long_training_gets_a_short_table() -> None:
    rows = shown(epochs_table(points(100))).splitlines()

    epochs = [line.split()[1] for line in rows if line.startswith("│")]
    assert epochs[0] == "1"
    assert epochs[-1] == "100"
    assert len(epochs) <= 8
    assert "pixel IoU" not in rows[1]
    assert "pixel IoU" in shown(epochs_table(points(20, pixels=True)))
    assert "0.74" in shown(epochs_table(points(20, pixels=True)))
    assert [line.split()[0] for line in curve_lines(points(30))] == ["loss", "AP@0.5"]
    assert list(curve_lines(points(1))) == []


def test_progress_is_told_in_a_line() -> None:
    progress = {"epoch": 3, "epochs": 60, "loss": 0.25, "eta_s": 90.0}

    assert epoch_line(progress) == "epoch 3 of 60: loss 0.2500, about 1 min 30 s left"
    assert epoch_line({"epoch": 1, "epochs": 2, "loss": None}) == "epoch 1 of 2"


def test_an_epoch_is_told_of_once_it_is_over() -> None:
    said: list[str] = []
    lines = EpochLines(said.append)

    lines({"phase": "dataset"})
    for epoch, loss in ((1, 0.9), (1, 0.8), (2, 0.7), (2, 0.6)):
        lines({"phase": "training", "epoch": epoch, "epochs": 2, "loss": loss})
    assert said == ["epoch 1 of 2: loss 0.8000"]
    for _ in range(2):  # a score on the hold-out
        lines({"phase": "scoring", "epoch": 2, "epochs": 2, "loss": 0.6})
    assert said == ["epoch 1 of 2: loss 0.8000", "epoch 2 of 2: loss 0.6000"]


def test_the_test_set_is_told_before_and_after() -> None:
    facts = {"ap50": 0.5, "ap75": 0.25, "ap90": 0.125, "pixels": {"f1": 0.75}}
    test = {"images": 2, "objects": 30, "base": facts, "candidate": {**facts, "ap50": 1.0}}

    text = shown(table_of_test(test))

    assert "2 images, 30 objects" in text
    assert text.index("before") < text.index("0.5000") < text.index("after") < text.index("1.0000")


# what it refuses


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


def refused(arguments: list[str], folder: Path) -> str:
    """Return what is said, on one line, when the command is refused in this process."""
    settings = {"DATA_DIR": str(folder / "data"), "DEVICE": "cpu", "MODEL": "nuclei-1"}
    done = CliRunner().invoke(app, ["train", *arguments], env=settings)
    assert done.exit_code not in (0, None)
    assert "Traceback" not in done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return " ".join(done.output.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Name a folder"),
        (["a", "--resume", "b"], "Name a folder"),
        (["nowhere"], "no folder 'nowhere'"),
        (["{empty}"], "looked for x_masks.tif"),
        (["{pairs}", "--images", "none/"], "looked for x_masks.tif"),
        (["{pairs}", "--images", "images/*.tif", "--masks", "masks/*.tif"], "images/*.tif"),
        (["{pairs}", "--test", "none"], "no folder 'none'"),
        (["{pairs}", "--model", "none-such"], "none-such"),
        (["{pairs}", "--learning-rate", "0"], "learning_rate is 0"),
        (["{pairs}", "--crop", "50"], "crop is 50"),
        (["{pairs}", "--lora-rank", "4"], "no attention"),
        (["{pairs}", "--epochs", "0"], "greater than or equal to 1"),
        (["{pairs}", "--output", "{file}"], "is a file"),
        (["--resume", "ffffffff"], "no session 'ffffffff'"),
    ],
)
def test_what_cannot_be_trained_is_a_sentence_and_no_session(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    places = {"empty": tmp_path / "empty", "pairs": tmp_path / "pairs", "file": tmp_path / "file"}
    places["empty"].mkdir()
    places["file"].write_text("x")
    folder_pairs(places["pairs"], [1])

    output = refused([one.format(**places) for one in arguments], tmp_path)

    assert said in output
    records = tmp_path / "data" / "records.sqlite3"
    if records.exists():
        assert Sessions(Database(f"sqlite:///{records}")).find() == []


# what it does


def session_of(terminal: Terminal) -> Session:
    database = Database(f"sqlite:///{terminal.folder}/data/records.sqlite3")
    (session,) = Sessions(database).find()
    database.close()
    return session


@pytest.mark.unhurried
def test_a_cellpose_folder_is_learned_from_and_the_result_predicts(terminal: Terminal) -> None:
    cellpose_folder(terminal.folder / "cells" / "train")
    cellpose_folder(terminal.folder / "cells" / "test", [20])
    here = {"DEVICE": "cpu", "MODEL": "nuclei-1"}

    done = terminal.type(
        f"ml-backend train cells/train --test cells/test {QUICK} --label discs --output out", **here
    )

    assert done.returncode == 0, done.stderr
    session = session_of(terminal)
    name = f"nuclei-1-d{session.project.project_id}-v1"
    assert session.version == name
    assert (session.label, session.dataset) == ("discs", "cells")
    assert session.parameters.min_train_masks == TrainingParameters().min_train_masks
    assert session.message is not None
    assert session.message in done.stdout
    assert "test set: 1 images" in done.stdout
    assert f"predict IMAGES --model {name}" in done.stdout
    assert f"MODEL={name} ml-backend serve" in done.stdout
    assert "epoch 2 of 2" in done.stderr
    assert (terminal.folder / "out" / name / "curves.png").is_file()
    manifest = json.loads((terminal.folder / "out" / name / "manifest.json").read_text())
    assert manifest["name"] == name

    for model in (name, session.id, f"out/{name}"):
        predicted = terminal.type(
            f"ml-backend predict cells/test/20.tif --model {model} --output masks-{model}", **here
        )
        assert predicted.returncode == 0, predicted.stderr
        masks = tifffile.imread(terminal.folder / f"masks-{model}" / "20_masks.tif")
        assert masks.shape == picture(20)[1].shape


@pytest.mark.unhurried
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_what_was_learned_and_it_goes_on(
    terminal: Terminal, number: signal.Signals
) -> None:
    folder_pairs(terminal.folder / "pairs")
    settings = {**terminal.environment, "DEVICE": "cpu", "MODEL": "nuclei-1"}
    options = "--epochs 400 --samples 4 --batch-size 2 --crop 64 --validation-interval 100"
    with (terminal.folder / "log").open("w") as log:
        running = subprocess.Popen(
            [sys.executable, "-m", "ml_backend", "train", "pairs", *options.split()],
            cwd=terminal.folder,
            env=settings,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + WITHIN_S
        while "epoch 3 of 400" not in (terminal.folder / "log").read_text():
            assert running.poll() is None, (terminal.folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(running.pid, number)
        code = running.wait(WITHIN_S)
    said = (terminal.folder / "log").read_text()

    session = session_of(terminal)
    assert code == 130
    assert session.state is SessionState.STOPPED
    assert f"ml-backend train --resume {session.id}" in said
    assert "Traceback" not in said
    # what was shown, because the records are told less often
    epochs = max(int(number) for number in re.findall(r"epoch (\d+) of 400", said))

    # a short rest of the long training is enough to see that it goes on
    with (terminal.folder / "log").open("w") as log:
        running = subprocess.Popen(
            [sys.executable, "-m", "ml_backend", "train", "--resume", session.id[:8]],
            cwd=terminal.folder,
            env=settings,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + WITHIN_S
        while f"epoch {epochs + 2} of 400" not in (terminal.folder / "log").read_text():
            assert running.poll() is None, (terminal.folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(running.pid, number)
        assert running.wait(WITHIN_S) == 130
    again = (terminal.folder / "log").read_text()
    assert "epoch 1 of 400" not in again
    assert session_of(terminal).attempts == 1


@pytest.mark.unhurried
def test_an_archive_is_learned_from(terminal: Terminal) -> None:
    folder_pairs(terminal.folder / "pairs")
    (terminal.folder / "pairs.zip").write_bytes(zipped(terminal.folder / "pairs"))

    done = terminal.type(f"ml-backend train pairs.zip {QUICK}", DEVICE="cpu", MODEL="nuclei-1")

    assert done.returncode == 0, done.stderr
    assert session_of(terminal).dataset == "pairs"


@pytest.mark.unhurried
def test_a_completed_session_is_not_gone_on_with(terminal: Terminal) -> None:
    folder_pairs(terminal.folder / "pairs")
    here = {"DEVICE": "cpu", "MODEL": "nuclei-1"}
    assert terminal.type(f"ml-backend train pairs {QUICK}", **here).returncode == 0

    done = terminal.type(f"ml-backend train --resume {session_of(terminal).id}", **here)

    assert done.returncode == 1
    assert "is completed" in done.stderr
