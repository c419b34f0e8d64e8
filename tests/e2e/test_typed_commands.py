"""Commands of the documentation, typed as a person would; no Label Studio is needed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import tifffile

from ml_backend.imaging.samples import fluorescent_nuclei
from ml_backend.settings import Settings
from tests.docs_commands import commands
from tests.running_backend import RunningBackend, running_backend
from tests.terminal import Terminal

ADDRESSES = sorted(
    {
        command.words[-1]
        for command in commands()
        if command.words[0] == "curl" and "/api/" not in command.text
    }
)


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    """Return a shell in an empty folder, where nothing is set."""
    return Terminal(tmp_path)


def documented(start: str) -> str:
    """Return the first command of the documentation that starts so."""
    return next(command.text for command in commands() if command.text.startswith(start))


def test_predict_works_as_documented(terminal: Terminal) -> None:
    (terminal.folder / "images").mkdir()
    for seed in (1, 2):
        sample, _ = fluorescent_nuclei(seed, shape=(128, 128), count=6)
        tifffile.imwrite(terminal.folder / "images" / f"{seed}.tif", sample)

    done = terminal.type(documented("ml-backend predict"))

    assert done.returncode == 0, done.stderr
    assert {path.name for path in (terminal.folder / "results").iterdir()} == {
        *("1_masks.tif", "1_overlay.png", "2_masks.tif", "2_overlay.png")
    }
    assert "objects" in done.stdout


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBackend]:
    """Yield a backend that runs as `ml-backend serve` starts it."""
    with running_backend(tmp_path_factory.mktemp("served")) as backend:
        backend.wait_until_up()
        yield backend


@pytest.mark.parametrize("address", ADDRESSES)
def test_curl_shows_what_the_documentation_says(address: str, served: RunningBackend) -> None:
    default = f"http://localhost:{Settings.model_fields['port'].default}"

    answer = httpx.get(address.replace(default, served.url))

    assert answer.status_code == 200
    assert ('"status":"UP"' if address.endswith("health") else "ml_backend_requests") in answer.text


def test_the_doctor_finds_nothing_wrong(served: RunningBackend, terminal: Terminal) -> None:
    port = served.url.rpartition(":")[2]

    done = terminal.type("ml-backend doctor", PORT=port, DATA_DIR=str(served.data_dir))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout


def test_the_backup_command_makes_a_copy(served: RunningBackend, terminal: Terminal) -> None:
    if shutil.which("sqlite3") is None:
        pytest.skip("the program sqlite3 is not installed here")

    done = terminal.type(documented("sqlite3"), DATA_DIR=str(served.data_dir))

    assert done.returncode == 0, done.stderr
    assert (terminal.folder / "records-backup.sqlite3").stat().st_size > 0
