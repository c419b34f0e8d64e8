"""Files in the cache under names that end as their addresses do."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml_backend.domain import FetchedFile
from ml_backend.hosting.files import NamedFiles, ending_of


@pytest.mark.parametrize(
    ("address", "ending"),
    [
        ("/data/upload/1/addab693-img0.png", ".png"),
        ("http://ls/data/local-files/?d=wells/a%20b.tif", ".tif"),
        ("s3://bucket/key/sound.wav", ".wav"),
        ("https://x/y.png?token=a.b", ".png"),
        ("https://x/y", None),
        ("https://x/y.reallylongending", None),
        ("https://x/y.p-g", None),
        ("https://[broken/y.png", None),
        ("data:image/png;base64,aaaa", None),
        ("", None),
    ],
)
def test_an_ending_is_read_from_the_address(address: str, ending: str | None) -> None:
    assert ending_of(address) == ending


def file_in(folder: Path, content: bytes = b"x", sha256: str = "ab") -> FetchedFile:
    folder.mkdir(exist_ok=True)
    path = folder / sha256
    path.write_bytes(content)
    return FetchedFile(path=path, sha256=sha256, size=len(content))


def test_a_file_gets_a_name_with_its_ending(tmp_path: Path) -> None:
    file = file_in(tmp_path / "cache", b"picture")
    named = NamedFiles(tmp_path / "names").name(file, "/a/b.png")
    assert named.name == "ab.png"
    assert named.read_bytes() == b"picture"
    assert NamedFiles(tmp_path / "names").name(file, "/c.png") == named


def test_a_file_without_ending_stays_as_it_is(tmp_path: Path) -> None:
    file = file_in(tmp_path / "cache")
    assert NamedFiles(tmp_path / "names").name(file, "/a/b") == file.path


def test_a_name_of_a_file_that_left_the_cache_leads_to_the_new_one(tmp_path: Path) -> None:
    names = NamedFiles(tmp_path / "names")
    first = file_in(tmp_path / "cache")
    names.name(first, "b.png")
    first.path.unlink()
    again = file_in(tmp_path / "elsewhere", b"new")
    assert names.name(again, "b.png").read_bytes() == b"new"


def test_names_that_lead_nowhere_are_swept(tmp_path: Path) -> None:
    gone = file_in(tmp_path / "cache")
    name = NamedFiles(tmp_path / "names").name(gone, "b.png")
    gone.path.unlink()
    NamedFiles(tmp_path / "names").name(file_in(tmp_path / "cache", sha256="cd"), "c.png")
    assert not name.is_symlink()


def test_where_no_link_can_be_made_the_file_itself_is_named(tmp_path: Path) -> None:
    file = file_in(tmp_path / "cache")
    (tmp_path / "names").write_text("a file where the folder should be")
    assert NamedFiles(tmp_path / "names").name(file, "b.png") == file.path
