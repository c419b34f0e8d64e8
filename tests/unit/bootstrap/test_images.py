"""How the fetcher that the engine uses is set up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ml_backend.bootstrap.images import build_fetcher
from ml_backend.domain import LabelStudioAccess
from ml_backend.settings import read_settings
from tests.image_server import Asked, ImageServer, Reply

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 32


def grow_old(folder: Path, seconds: float) -> None:
    """Let everything in the image cache have been checked longer ago."""
    for path in (folder / "images" / "entries").iterdir():
        entry = json.loads(path.read_bytes())
        entry["origin"]["checked_at"] -= seconds
        path.write_text(json.dumps(entry))


@pytest.mark.parametrize(
    ("path", "requests"), [("/data/local-files/a.png", 2), ("/data/upload/1/a.png", 1)]
)
def test_a_file_that_may_change_is_asked_for_again_after_a_minute_and_an_upload_is_not(
    tmp_path: Path, path: str, requests: int
) -> None:
    def serve(asked: Asked) -> Reply:
        known = asked.headers.get("if-none-match") == '"1"'
        return Reply(status=304) if known else Reply(headers={"ETag": '"1"'}, body=PNG)

    with ImageServer() as server:
        server.routes[path] = serve
        access = LabelStudioAccess(origin=server.origin)
        fetcher = build_fetcher(read_settings(data_dir=tmp_path, allowed_hosts="127.0.0.1"))

        for age_s in (0, 50, 11):
            grow_old(tmp_path, age_s)
            fetcher.fetch(path, task_id=1, access=access)

        assert len(server.asked) == requests
