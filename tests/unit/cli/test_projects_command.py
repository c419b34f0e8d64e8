"""`ml-backend projects`: what is connected, and archives of what was drawn."""

from __future__ import annotations

import io
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image as Picture
from typer.testing import CliRunner

from ml_backend.cli import app
from ml_backend.datasets import DatasetSource
from ml_backend.domain import ProjectKey
from ml_backend.learning import Annotation, LabelledTask
from ml_backend.store.annotations import AnnotationLedger
from ml_backend.store.database import Database
from ml_backend.store.projects import Projects
from ml_backend.training.dataset_source import find_files
from tests.annotations_of import POLYGONS, regions_of
from tests.image_server import ImageServer, Reply

PROJECT = ProjectKey(origin="http://labels.example", project_id=3, created_at=1_800_000_000)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a DATA_DIR with one project, one task of which is annotated."""
    folder = tmp_path / "data"
    folder.mkdir()
    database = Database(f"sqlite:///{folder / 'records.sqlite3'}")
    database.migrate()
    Projects(database).record(
        PROJECT, hostname=PROJECT.origin, access_token=None, label_config=POLYGONS
    )
    database.close()
    annotate(folder, "http://labels.example/a.png")
    return folder


def annotate(folder: Path, address: str) -> None:
    """Keep an annotation of two objects in the image at an address."""
    database = Database(f"sqlite:///{folder / 'records.sqlite3'}")
    labels = np.zeros((50, 50), np.int32)
    labels[10:20, 10:20], labels[30:40, 10:20] = 1, 2
    AnnotationLedger(database).record(
        PROJECT,
        Annotation(task_id=7, annotation_id=70, updated_at=time.time(), result=regions_of(labels)),
        LabelledTask(task_id=7, data={"image": address}),
    )
    database.close()


def run(data: Path, *arguments: str) -> Result:
    """Run `ml-backend projects` on these records."""
    environment = {
        "DATA_DIR": str(data),
        "ALLOWED_HOSTS": "127.0.0.1",
        "NO_PROXY": "*",
        "COLUMNS": "300",
        "LOG_LEVEL": "ERROR",
    }
    return CliRunner(env=environment).invoke(app, ["projects", *arguments])


def test_projects_are_listed_with_their_label_studio(data: Path) -> None:
    listed = run(data, "list")

    assert listed.exit_code == 0, listed.output
    assert "http://labels.example" in listed.stdout


@pytest.mark.parametrize(
    ("data_format", "file"), [("labels", "masks/task-7.tif"), ("coco", "annotations.json")]
)
def test_an_export_is_written_as_a_whole(data: Path, data_format: str, file: str) -> None:
    output = data.parent / "out" / "cells.zip"

    done = run(data, "export", "3", "--format", data_format, "--output", str(output))

    assert done.exit_code == 0, done.output
    assert "2 objects in 1 images" in done.stdout
    assert file in zipfile.ZipFile(output).namelist()
    assert list(output.parent.iterdir()) == [output]


def test_an_export_with_images_is_a_folder_to_train_on(data: Path) -> None:
    with ImageServer() as server:
        picture = io.BytesIO()
        Picture.fromarray(np.zeros((50, 50), np.uint8)).save(picture, "PNG")
        server.routes["/a.png"] = Reply(body=picture.getvalue())
        annotate(data, f"{server.origin}/a.png")
        output = data.parent / "cells.zip"
        done = run(data, "export", "3", "--images", "--output", str(output))

    assert done.exit_code == 0, done.output
    folder = output.with_suffix("")
    unpack = [sys.executable, "-m", "zipfile", "-e", str(output), str(folder)]  # as documented
    subprocess.run(unpack, check=True)
    source = DatasetSource(root=str(folder), train_images="images/", train_annotations="masks/")
    (pair,) = find_files(folder, source).training.pairs
    assert (pair.image, pair.mask) == ("images/task-7.png", "masks/task-7.tif")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("9",), "There is no project '9'"),
        (("3", "--what", "predictions"), "serves no model yet"),
    ],
)
def test_what_cannot_be_exported_is_said_in_a_sentence(
    data: Path, arguments: tuple[str, ...], said: str
) -> None:
    output = data.parent / "cells.zip"

    failed = run(data, "export", *arguments, "--output", str(output))

    assert failed.exit_code == 1
    assert said in " ".join(failed.stderr.split())
    assert not output.exists()
