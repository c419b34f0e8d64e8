"""The pages about the Python client: their blocks are run, in order, against a real backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from ml_backend.imaging.samples import fluorescent_nuclei
from tests.docs_commands import ROOT, fences
from tests.running_backend import RunningBackend, running_backend
from tests.terminal import Terminal

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PAGES = (ROOT / "README.md", ROOT / "docs" / "how-to" / "python-client.md")
BLOCKS = [fence for page in PAGES for fence in fences(page) if fence.language == "python"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the images that the page speaks of."""
    folder = tmp_path_factory.mktemp("page")
    for name in ("images", "data/nuclei/images", "data/nuclei/masks"):
        (folder / name).mkdir(parents=True)
    for seed in range(4):
        image, masks = fluorescent_nuclei(seed, shape=(160, 160), count=12)
        tifffile.imwrite(folder / f"data/nuclei/images/{seed}.tif", image)
        tifffile.imwrite(folder / f"data/nuclei/masks/{seed}.tif", masks.astype(np.uint16))
        tifffile.imwrite(folder / f"images/{seed}.tif", image)
        for name in ("nuclei.tif", "images/nuclei.tif"):
            tifffile.imwrite(folder / name, image)
    return folder


@pytest.fixture(scope="module")
def backend(folder: Path) -> Iterator[RunningBackend]:
    """Yield a backend that may read the page's dataset."""
    settings = {"DATA_ROOTS": str(folder / "data"), "DEVICE": "cpu"}
    with running_backend(folder, settings) as backend:
        backend.wait_until_up()
        yield backend


def test_every_block_does_what_the_page_says(
    backend: RunningBackend,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    created = Terminal(tmp_path).type(
        "ml-backend tokens create notebook --role train", DATA_DIR=str(backend.data_dir)
    )
    assert created.returncode == 0, created.stderr
    token = created.stdout.strip()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ML_BACKEND_URL", backend.url)
    monkeypatch.setenv("ML_BACKEND_TOKEN", token)
    here = {
        'Client("http://localhost:9090")': f'Client("{backend.url}", token="{token}")',
        '"http://localhost:9090"': f'"{backend.url}"',
        '"mlb_..."': f'"{token}"',
        '"/data/nuclei': f'"{folder}/data/nuclei',
        "n_epochs=20": "n_epochs=1",  # the page's training is longer than a test's
        'label="liver"': 'label="liver", n_samples=8',
    }
    names: dict[str, object] = {}

    for block in BLOCKS:
        text = block.text
        for documented, real in here.items():
            text = text.replace(documented, real)
        exec(compile(text, str(block), "exec"), names)  # noqa: S102  # it is our own page

    said = capsys.readouterr().out
    assert "described_as" not in said, "whoami prints what people need to know"
    assert "epoch 1 loss" in said
    assert "There is no session 'no-such-session'" in said
    for name in ("nuclei.geojson", "my-nuclei.safetensors", "my-nuclei.zip"):
        assert (folder / name).stat().st_size > 0
