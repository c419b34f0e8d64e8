"""A model leaves a running backend through its API and comes back to it, with the same masks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ml_backend.client import Client
from ml_backend.errors import BackendError
from tests.package_checks import nuclei
from tests.running_backend import RunningBackend, running_backend

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

AUTHORS = [{"name": "A. Author", "affiliation": "An Institute"}]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBackend]:
    """Yield a backend that runs as `ml-backend serve` starts it."""
    with running_backend(tmp_path_factory.mktemp("served")) as backend:
        backend.wait_until_up()
        yield backend


def test_a_package_goes_out_and_comes_back(served: RunningBackend, tmp_path: Path) -> None:
    image = nuclei().pixels[..., 0]
    with Client(served.url) as client:
        package = client.models.export("nuclei-1", tmp_path / "nuclei.zip", authors=AUTHORS)
        client.models.upload(package, name="came-back")
        (before,) = client.infer(image, model="nuclei-1")
        (after,) = client.infer(image, model="came-back")

    assert before.masks.max() > 20
    np.testing.assert_array_equal(after.masks, before.masks)
    assert not list((served.data_dir / "exports").glob("*/tmp*"))


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("no-such-model", {"authors": AUTHORS}, "no model"),
        ("nuclei-1", {}, "names its authors"),
        ("nuclei-1", {"format": "cellpose"}, "which Cellpose cannot build"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    served: RunningBackend, tmp_path: Path, name: str, options: dict[str, object], sentence: str
) -> None:
    with Client(served.url) as client, pytest.raises(BackendError, match=sentence):
        client.models.export(name, tmp_path / "package.zip", **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
