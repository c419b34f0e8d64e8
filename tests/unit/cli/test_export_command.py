"""`ml-backend export`, typed as documented; a fine-tuned version as the real programs see it."""

from __future__ import annotations

import json
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from typer.testing import CliRunner

from ml_backend.cli import app
from ml_backend.domain import Component, ProjectKey
from ml_backend.engines.catalogue import resolve_component
from ml_backend.engines.lora import read_state
from ml_backend.imaging.samples import fluorescent_nuclei
from ml_backend.model_files.version_folders import Publication, Publisher
from tests.docs_commands import commands
from tests.package_checks import bioimageio, masks_of, nuclei, read_back
from tests.small_cpsam import save_small_cpsam
from tests.terminal import Terminal
from tests.unit.training.fine_tuning import SHORT, Watched, discs

pytestmark = pytest.mark.unhurried

SECRET = "http://label-studio.intern.example:8080"
AUTHOR = ("--author", "A. Author, An Institute")


def documented(start: str) -> str:
    """Return the first command of the documentation that starts so."""
    return next(command.text for command in commands() if command.text.startswith(start))


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """Return a shell in which `bioimageio` and `python` are those of this environment."""
    terminal = Terminal(tmp_path_factory.mktemp("export"))
    own = str(Path(sys.executable).parent)
    folder, _, rest = terminal.environment["PATH"].partition(":")
    terminal.environment |= {"PATH": f"{folder}:{own}:{rest}", "OMP_NUM_THREADS": "1"}
    return terminal


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Component:
    """Return the built-in network, fine-tuned for a moment and published as a version."""
    folder = tmp_path_factory.mktemp("fine-tuning")
    base = resolve_component("nuclei-1", models_dir=folder, cuda=False)
    parameters = replace(SHORT, n_epochs=1, n_samples=4, batch_size=2, learning_rate=1e-4)
    trained = Watched(folder, base).run(
        [discs(1, diameter=30.0), discs(2, diameter=30.0)], parameters=parameters, diameter=30.0
    )
    publication = Publication(
        name="nuclei-1-p3-v1",
        session_id="3f2a91c0",
        weights=trained.weights,
        parent=base,
        architecture=base.architecture,
        licence="CC-BY-4.0",
        diameter=30.0,
        facts={
            "project": f"{SECRET}#3.1795215681",
            "metrics": {"images": 2, "candidate": {"ap50": 0.91, "ap75": 0.7, "ap90": 0.3}},
            "data": {"sha256": "ab" * 32, "training_images": 2, "held_out_images": 1},
            "parameters": parameters.canonical(),
            "segmentation": {"flow_threshold": 0.5, "cellprob_threshold": -0.5, "min_size": 20},
        },
    )
    project = ProjectKey(origin=SECRET, project_id=3, created_at=1795215681)
    return Publisher(folder / "models").publish(project, publication)


@pytest.fixture(scope="module")
def exported(terminal: Terminal, version: Component) -> Path:
    """Return the package of the version, as the command writes it."""
    command = documented("ml-backend export").replace("nuclei-1", str(Path(version.path).parent))
    done = terminal.type(command, DEVICE="cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nuclei.zip is written" in done.stdout
    return terminal.folder / "nuclei.zip"


def test_the_real_command_is_content_with_a_fine_tuned_version(
    terminal: Terminal, exported: Path, tmp_path: Path
) -> None:
    done = terminal.type(documented("bioimageio test"))
    assert done.returncode == 0, done.stdout + done.stderr

    report = bioimageio(
        ["validate-format", str(exported), "--summary", "report.json"], tmp_path / "aside"
    )
    assert report.returncode == 0, report.stdout
    assert json.loads((tmp_path / "aside" / "report.json").read_text())["status"] in (
        "passed",
        "valid-format",
    )


def test_masks_of_a_fine_tuned_version_are_the_same_when_read_back(
    exported: Path, version: Component, tmp_path: Path
) -> None:
    model, component = read_back(exported, tmp_path / "again")
    image = nuclei()

    before, after = masks_of(version, image), masks_of(component, image)

    assert before.max() > 10
    np.testing.assert_array_equal(after, before)
    assert (model.diameter, model.licence, model.parent) == (30.0, "CC-BY-4.0", "nuclei-1")
    assert component.sha256 == version.sha256


def test_a_package_tells_where_a_version_is_from_and_not_where_it_lies(
    exported: Path, version: Component
) -> None:
    with zipfile.ZipFile(exported) as packed:
        texts = {
            name: packed.read(name).decode()
            for name in packed.namelist()
            if name.endswith((".md", ".yaml", ".json", ".py"))
        }
    card = texts["README.md"]
    for words in ("made from `nuclei-1`", "CC-BY-4.0", "0.910", "images to learn from: 2"):
        assert words in card
    description = yaml.safe_load(texts["bioimageio.yaml"])
    assert description["authors"] == [{"name": "A. Author", "affiliation": "An Institute"}]
    assert description["uploader"] == {"name": "A. Author", "email": "author@example.org"}
    assert json.loads(texts["manifest.json"])["masks"] == {
        "flow_threshold": 0.5,
        "cellprob_threshold": -0.5,
        "iterations": int(200 / (22 / 30)),
        "min_size": 20,
    }
    for name, text in texts.items():
        for secret in ("intern.example", "3f2a91c0", "1795215681", str(Path(version.path).parent)):
            assert secret not in text, name


def test_a_package_is_used_as_documented(terminal: Terminal, exported: Path) -> None:
    assert exported.is_file()
    picture, _ = fluorescent_nuclei(3, (320, 400), 60)
    tifffile.imwrite(terminal.folder / "image.tif", picture)

    for start in ("bioimageio predict", "unzip nuclei.zip", "python masks.py"):
        done = terminal.type(documented(start))
        assert done.returncode == 0, done.stdout + done.stderr

    masks = tifffile.imread(terminal.folder / "masks.tif")
    assert masks.shape == (320, 400)
    assert masks.max() > 20


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["export", *arguments], env={"DEVICE": "cpu"})
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code, " ".join(done.output.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nuclei-1",), "names its authors"),
        (("nuclei-1", "--author", ", An Institute"), "needs a name"),
        (("nuclei-1", *AUTHOR, "--uploader", "A. Author <author>"), "no e-mail address"),
        (("nuclei-1", *AUTHOR, "--uploader", "nobody"), "no e-mail address"),
        (("nuclei-1", *AUTHOR, "--citation", "A text and no source"), "doi or url"),
        (("nuclei-1", *AUTHOR, "--title", "a:b:c:d"), "5 to 128"),
        (("nuclei-1", *AUTHOR, "--sample", "gone.png"), "gone.png"),
        (("no-such-model", *AUTHOR), "no model or file 'no-such-model'"),
        (("nuclei-1", "--format", "cellpose"), "which Cellpose cannot build"),
    ],
)
def test_what_cannot_be_exported_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], sentence: str
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    output = tmp_path / "out" / "package.zip"

    code, said = run(*arguments, "--output", str(output))

    assert code != 0
    assert sentence in said
    assert "Traceback" not in said
    assert not output.exists()
    assert not output.parent.exists() or not list(output.parent.iterdir())


def test_a_checkpoint_of_cellpose_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    component = save_small_cpsam(tmp_path)
    output = tmp_path / "cells"

    code, said = run(component.path, "--format", "cellpose", "--output", str(output))

    assert code == 0, said
    for key, tensor in read_state(Path(component.path)).items():
        np.testing.assert_array_equal(read_state(output)[key], tensor)
