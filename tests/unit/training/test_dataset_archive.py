"""Archives are unpacked so that nothing in them can do harm."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ml_backend.errors import TrainingError
from ml_backend.training.dataset_archive import ArchiveLimits, is_archive, move_up, unpack

Files = dict[str, bytes]

SMALL = ArchiveLimits(files=10, unpacked=2_000_000, ratio=20.0, ratio_from=500_000)


def make_zip(path: Path, files: Files) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def make_tar(path: Path, files: Files, mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


FORMATS: dict[str, Callable[[Path, Files], None]] = {
    "zip": make_zip,
    "tar": make_tar,
    "tar.gz": lambda path, files: make_tar(path, files, "w:gz"),
    "tar.bz2": lambda path, files: make_tar(path, files, "w:bz2"),
    "tar.xz": lambda path, files: make_tar(path, files, "w:xz"),
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def unpacked(archive: Path, limits: ArchiveLimits = SMALL) -> Files:
    """Unpack; return what is there, and check that nothing is anywhere else."""
    folder = archive.parent / "target"
    unpack(archive, folder, limits=limits)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def assert_refused(archive: Path, said: str, limits: ArchiveLimits = SMALL) -> None:
    with pytest.raises(TrainingError, match=said):
        unpack(archive, archive.parent / "target", limits=limits)
    assert {path.name for path in archive.parent.iterdir()} == {archive.name}


@pytest.mark.parametrize("kind", FORMATS)
def test_files_come_out_as_they_went_in(archive: Path, kind: str) -> None:
    files = {"d/images/a.tif": os.urandom(3000), "d/masks/ä.tif": b"", "notes.txt": b"x"}
    FORMATS[kind](archive, files)

    assert is_archive(archive)
    assert unpacked(archive) == files


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "name", ["../out.tif", "/tmp/out.tif", "a/../../out.tif", "C:/out.tif", "a\\..\\..\\out.tif"]
)
def test_names_that_lead_out_are_refused(archive: Path, kind: str, name: str) -> None:
    FORMATS[kind](archive, {"a.tif": b"x", name: b"evil"})

    assert_refused(archive, "not inside of it")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.FIFOTYPE, "a device"),
    ],
)
def test_links_and_devices_in_a_tar_are_refused(archive: Path, kind: bytes, said: str) -> None:
    with tarfile.open(archive, "w") as made:
        info = tarfile.TarInfo("a.tif")
        info.type, info.linkname = kind, "/etc/passwd"
        made.addfile(info)

    assert_refused(archive, said)


def test_a_link_in_a_zip_is_refused(archive: Path) -> None:
    with zipfile.ZipFile(archive, "w") as made:
        info = zipfile.ZipInfo("a.tif")
        info.create_system = 3
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        made.writestr(info, "/etc/passwd")

    assert_refused(archive, "a link")


@pytest.mark.parametrize("kind", FORMATS)
def test_more_than_was_agreed_does_not_come_out(archive: Path, kind: str) -> None:
    FORMATS[kind](archive, {f"{number}.tif": os.urandom(300_000) for number in range(8)})

    assert_refused(archive, "unpacks to more than")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz"])
def test_what_unpacks_to_very_much_more_than_it_is_is_refused(archive: Path, kind: str) -> None:
    FORMATS[kind](archive, {"a.tif": bytes(1_500_000)})

    assert_refused(archive, "times its size")


def test_the_sizes_that_a_zip_names_are_not_believed(archive: Path) -> None:
    make_zip(archive, {"a.tif": bytes(1_500_000)})
    content = archive.read_bytes()
    archive.write_bytes(content.replace((1_500_000).to_bytes(4, "little"), b"\x01\0\0\0"))

    assert_refused(archive, "cannot be unpacked|times its size")


def test_too_many_files_are_refused(archive: Path) -> None:
    make_zip(archive, {f"{number}.tif": b"x" for number in range(11)})

    assert_refused(archive, "more than 10 files")


def test_a_file_that_comes_twice_is_refused(archive: Path) -> None:
    make_tar(archive, {"a.tif": b"x"})
    with tarfile.open(archive, "a") as made:
        info = tarfile.TarInfo("./a.tif")
        made.addfile(info)

    assert_refused(archive, "twice")


def test_a_large_header_is_not_read(archive: Path) -> None:
    with tarfile.open(archive, "w:gz", format=tarfile.PAX_FORMAT) as made:
        info = tarfile.TarInfo("a.tif")
        info.pax_headers = {"comment": "x" * 70_000_000}
        made.addfile(info)

    assert_refused(archive, "header of more than 64 MB", ArchiveLimits())


def test_a_zip_that_lists_too_much_is_not_read(archive: Path) -> None:
    make_zip(archive, {"a.tif": b"x"})
    content = bytearray(archive.read_bytes())
    at = content.rindex(b"PK\x05\x06")
    content[at + 12 : at + 16] = (65_000_000).to_bytes(4, "little")
    archive.write_bytes(content)

    assert_refused(archive, "lists too many files")


def test_a_password_is_refused(archive: Path) -> None:
    make_zip(archive, {"a.tif": b"x" * 100})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)

    assert_refused(archive, "password")


@pytest.mark.parametrize("kind", FORMATS)
def test_half_an_archive_is_refused(archive: Path, kind: str) -> None:
    FORMATS[kind](archive, {f"{number}.tif": os.urandom(9000) for number in range(3)})
    archive.write_bytes(archive.read_bytes()[:20_000])

    assert_refused(archive, "cannot be unpacked")


@pytest.mark.parametrize("content", [b"", b"<html>login</html>", os.urandom(5000)])
def test_what_is_no_archive_is_refused(archive: Path, content: bytes) -> None:
    archive.write_bytes(content)

    assert not is_archive(archive)
    assert_refused(archive, "cannot be unpacked")


def test_a_stop_leaves_nothing_behind(archive: Path) -> None:
    make_zip(archive, {"a.tif": b"x", "b.tif": b"x"})

    class Stopped(BaseException):
        pass

    def stop() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        unpack(archive, archive.parent / "target", on_file=stop)
    assert {path.name for path in archive.parent.iterdir()} == {archive.name}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["d/a.tif"], "d"),
        (["d/a.tif", "__MACOSX/d/a.tif", ".DS_Store"], "d"),
        (["d/a.tif", "b.tif"], ""),
        (["d/a.tif", "e/b.tif"], ""),
        (["a.tif"], ""),
    ],
)
def test_the_one_folder_of_an_archive_is_what_is_meant(
    tmp_path: Path, names: list[str], expected: str
) -> None:
    for name in names:
        path: Any = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")

    assert move_up(tmp_path) == (tmp_path / expected if expected else tmp_path)
