"""Archives are the same each time, and nobody is harmed by one from elsewhere."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest

from ml_backend.errors import CheckpointInvalid
from ml_backend.service.package_archive import PackageArchive, write_archive


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        for file in ("b.txt", "bioimageio.yaml", "a.pt"):
            (folder / file).write_text(file)
        write_archive(folder, tmp_path / f"{name}.zip")

    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "other.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.namelist() == ["bioimageio.yaml", "a.pt", "b.txt"]


@pytest.mark.parametrize("name", ["bioimageio.yaml", "rdf.yaml", "model.yaml"])
def test_the_description_is_found_under_any_of_its_names(tmp_path: Path, name: str) -> None:
    path = write_zip(tmp_path / "a.zip", {name: b"type: model"})
    with PackageArchive(path) as archive:
        assert archive.description() == {"type": "model"}


def test_what_lies_outside_of_the_archive_s_top_is_not_there(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"../evil.txt": b"x", "sub/w.pt": b"x", "/etc/x": b"x"})
    with PackageArchive(path) as archive:
        for name in ("../evil.txt", "sub/w.pt", "/etc/x", "evil.txt"):
            assert not archive.holds(name)
            with pytest.raises(CheckpointInvalid, match="lacks"):
                archive.extract(name, tmp_path / "out", sha256=None)
    assert not (tmp_path.parent / "evil.txt").exists()


def test_a_link_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        entry = zipfile.ZipInfo("weights.pt")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(CheckpointInvalid, match="link"):
        PackageArchive(path)


def test_a_file_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.pt", "one")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("weights.pt", "other")
    with pytest.raises(CheckpointInvalid, match="twice"):
        PackageArchive(path)


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"bioimageio.yaml": b"#" * 2_000_000})
    with PackageArchive(path) as archive, pytest.raises(CheckpointInvalid, match="larger than"):
        archive.description()


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {f"{n}.txt": b"" for n in range(1001)})
    with pytest.raises(CheckpointInvalid, match="more than"):
        PackageArchive(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive at all"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    with pytest.raises(CheckpointInvalid, match="no zip archive"):
        PackageArchive(path)


@pytest.mark.parametrize("content", [b"- a", b"a: [", b"\xff\xfe", b"!!python/object:os.system {}"])
def test_a_description_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes) -> None:
    path = write_zip(tmp_path / "a.zip", {"bioimageio.yaml": content})
    with PackageArchive(path) as archive, pytest.raises(CheckpointInvalid):
        archive.description()


def test_damage_is_noticed(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"weights.pt": bytes(range(256)) * 40})
    content = bytearray(path.read_bytes())
    content[60:80] = b"\0" * 20
    path.write_bytes(content)
    with PackageArchive(path) as archive, pytest.raises(CheckpointInvalid, match="damaged"):
        archive.extract("weights.pt", tmp_path / "out", sha256=None)


def test_another_checksum_is_noticed(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"weights.pt": b"weights"})
    with PackageArchive(path) as archive, pytest.raises(CheckpointInvalid, match="checksum"):
        archive.extract("weights.pt", tmp_path / "out", sha256="00" * 32)
