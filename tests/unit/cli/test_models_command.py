"""`ml-backend models` against a server of our own instead of Cellpose's hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ml_backend.cli import app
from tests.image_server import ImageServer, Reply

WEIGHTS = b"weights" * 1000


@pytest.fixture
def hub() -> Iterator[ImageServer]:
    """Yield a hub that publishes one model."""
    with ImageServer() as server:
        server.routes["/hub/cpsam_v2"] = Reply(body=WEIGHTS)
        yield server


def run(folder: Path, *arguments: str) -> Result:
    """Run `ml-backend models` with a folder for weights."""
    environment = {"CELLPOSE_LOCAL_MODELS_PATH": str(folder), "COLUMNS": "300", "NO_PROXY": "*"}
    return CliRunner(env=environment).invoke(app, ["models", *arguments])


def row(listed: Result, name: str) -> str:
    """Return the line about a model."""
    return next(line for line in listed.stdout.splitlines() if f" {name} " in line)


def test_every_model_is_listed_with_its_licence_and_whether_its_weights_are_there(
    tmp_path: Path,
) -> None:
    (tmp_path / "cpsam").write_bytes(WEIGHTS)

    listed = run(tmp_path)

    assert listed.exit_code == 0
    assert "CC0" in row(listed, "nuclei-1")
    assert "CC-BY-NC" in row(listed, "cpsam")
    assert str(tmp_path / "cpsam") in row(listed, "cpsam")
    assert "missing; `ml-backend models download cpsam_v2`" in row(listed, "cpsam_v2")


def test_a_download_says_the_licence_and_puts_the_weights_where_they_are_looked_for(
    tmp_path: Path, hub: ImageServer
) -> None:
    done = run(tmp_path / "new", "download", "cpsam_v2", "--hub", f"{hub.origin}/hub")

    assert done.exit_code == 0, done.output
    assert "CC-BY-NC" in done.stderr
    assert (tmp_path / "new" / "cpsam_v2").read_bytes() == WEIGHTS
    assert str(tmp_path / "new" / "cpsam_v2") in row(run(tmp_path / "new"), "cpsam_v2")


def test_weights_that_are_there_are_not_fetched_again(tmp_path: Path, hub: ImageServer) -> None:
    for _ in range(2):
        done = run(tmp_path, "download", "cpsam_v2", "--hub", f"{hub.origin}/hub/")

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

    failed = run(tmp_path, "download", name, "--hub", hub.origin + path)

    assert failed.exit_code == 78
    assert reason in failed.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_hub_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    failed = run(tmp_path, "download", "cpsam_v2", "--hub", "http://127.0.0.1:9/")

    assert failed.exit_code == 78
    assert "copy the file to" in failed.stderr
