"""The commands in the documentation that ask for masks, typed as they stand there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.docs_commands import commands
from tests.infer_files import READERS
from tests.infer_site import PICTURE, SHAPE, URL, Site, open_site

pytestmark = [
    pytest.mark.unhurried,
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]

TYPED = sorted({
    command.text for command in commands()
    if command.words[0] == "curl" and command.words[1].endswith(URL)
})  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Yield a backend with the images that the documentation talks about."""
    with open_site(tmp_path_factory.mktemp("site")) as site:
        for name in ("a.tif", "b.tif", "nuclei.tif"):
            cv2.imwrite(str(site.root / name), PICTURE)
        site.images.routes["/nuclei.tif"] = site.images.routes["/nuclei.png"]
        yield site


@pytest.mark.parametrize("text", TYPED)
def test_a_documented_command_gives_masks(site: Site, tmp_path: Path, text: str) -> None:
    for name in ("a.tif", "b.tif", "nuclei.tif"):
        shutil.copy(site.root / name, tmp_path)
    here = str(site.client.base_url).rstrip("/")
    typed = (
        re.sub(r"http://localhost:\d+", here, text)
        .replace("https://example.org", site.images.origin)
        .replace("/data/nuclei", str(site.root))
    )

    done = subprocess.run(
        ["bash", "-c", typed], cwd=tmp_path, capture_output=True, check=True, timeout=300
    )

    output = re.search(r"-o (\S+)", text)
    written = (tmp_path / output[1]).read_bytes() if output else done.stdout
    kind = re.search(r"format[=\": ]+(\w+)", text)
    if output is None:
        assert np.asarray(json.loads(written)["items"][0]["masks"]).shape == (3, 3)
    elif output[1].endswith(".zip"):
        assert written.startswith(b"PK")
    else:
        assert kind is not None
        if kind[1] == "coco":
            assert len(json.loads(written)["images"]) == 2
        else:
            assert READERS[kind[1]](written, SHAPE).max() > 5


def test_there_are_commands_to_type() -> None:
    assert len(TYPED) >= 4
