"""The cache keeps whole files only, whatever happens to the process or the disk."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ml_backend.domain import FetchedFile, LabelStudioAccess
from ml_backend.errors import ImageFetchError
from ml_backend.imaging.cache import DiskCache
from tests.image_server import Asked, ImageServer, Reply
from tests.unit.imaging.conftest import MakeFetcher

NOW = 1_800_000_000.0


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def keep(cache: DiskCache, key: str, content: bytes) -> FetchedFile:
    with cache.receive() as incoming:
        incoming.write(content)
        return cache.keep(incoming, key=key, origin=cache.origin())


def test_what_was_kept_is_found_by_another_cache_on_the_same_folder(tmp_path: Path) -> None:
    file = keep(DiskCache(tmp_path, max_bytes=1000), "key", b"pixels")

    entry = DiskCache(tmp_path, max_bytes=1000).find("key")

    assert entry is not None
    assert entry.file == file
    assert entry.file.path.read_bytes() == b"pixels"


def test_the_same_content_under_two_keys_is_stored_once(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, max_bytes=1000)

    one, two = keep(cache, "one", b"pixels"), keep(cache, "two", b"pixels")

    assert one.path == two.path
    assert len(list((tmp_path / "content").iterdir())) == 1


def test_it_counts_what_it_was_asked_for_and_what_it_keeps(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, max_bytes=1000)
    keep(cache, "key", b"pixels")
    for key in ("key", "other", "key"):
        cache.find(key)

    assert (cache.asked, cache.size) == ((2, 1), 6)


def test_a_truncated_file_is_not_served(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, max_bytes=1000)
    keep(cache, "key", b"pixels").path.write_bytes(b"pix")

    assert cache.find("key") is None


def test_a_changed_file_of_the_same_size_is_not_served(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, max_bytes=1000)
    path = keep(cache, "key", b"pixels").path
    path.write_bytes(b"PIXELS")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000))

    assert cache.find("key") is None
    assert DiskCache(tmp_path, max_bytes=1000).find("key") is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sha256": "../../x", "size": 1, "origin": {}}'])
def test_a_damaged_entry_is_a_miss(text: str, tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, max_bytes=1000)
    keep(cache, "key", b"pixels")
    (tmp_path / "entries" / "key.json").write_text(text)

    assert cache.find("key") is None


def test_the_file_not_asked_for_longest_leaves_first(tmp_path: Path) -> None:
    clock = Clock()
    cache = DiskCache(tmp_path, max_bytes=250, clock=clock)
    for name in ("old", "asked", "middle"):
        clock.now += 1000
        keep(cache, name, name.encode().ljust(80))
    clock.now += 1000
    cache.find("old")
    clock.now += 1000

    keep(cache, "new", b"n" * 80)

    assert cache.find("asked") is None
    assert [cache.find(name) is not None for name in ("old", "middle", "new")] == [True] * 3
    assert not (tmp_path / "entries" / "asked.json").exists()


def test_a_file_that_was_just_asked_for_stays_although_it_is_too_much(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, max_bytes=100)

    files = [keep(cache, name, name.encode() * 90) for name in ("a", "b", "c")]

    assert all(file.path.exists() for file in files)


def test_what_was_not_kept_vanishes(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, max_bytes=1000)

    def break_off() -> None:
        with cache.receive() as incoming:
            incoming.write(b"half")
            raise RuntimeError("the connection broke")

    with pytest.raises(RuntimeError):
        break_off()

    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size] == []


@pytest.mark.faults
def test_a_process_killed_while_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from ml_backend.imaging.cache import DiskCache\n"
        "cache = DiskCache(Path(sys.argv[1]), max_bytes=10**6)\n"
        "with cache.receive() as incoming:\n"
        "    incoming.write(b'x' * 5000)\n"
        "    incoming.flush()\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
    )
    root = Path(__file__).resolve().parents[3]
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, cwd=root
    )
    assert child.stdout is not None
    child.stdout.readline()
    alive = DiskCache(tmp_path, max_bytes=1000)
    (writing,) = [path for path in tmp_path.glob("incoming/*/*") if path.stat().st_size]

    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    alive.close()
    cache = DiskCache(tmp_path, max_bytes=1000)

    assert not writing.exists()
    assert list((tmp_path / "content").iterdir()) == []
    assert cache.find("key") is None


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")

    with pytest.raises(ImageFetchError, match="DATA_DIR"):
        DiskCache(tmp_path / "cache", max_bytes=1000)


def test_an_old_entry_is_asked_for_again_and_kept_when_unchanged(
    tmp_path: Path, elsewhere: ImageServer, make_fetcher: MakeFetcher
) -> None:
    def route(asked: Asked) -> Reply:
        if asked.headers.get("if-none-match") == '"v1"':
            return Reply(status=304)
        return Reply(headers={"ETag": '"v1"'}, body=b"pixels")

    elsewhere.routes["/a.png"] = route
    clock = Clock()
    cache = DiskCache(tmp_path / "cache", max_bytes=1000, life_s=3600, clock=clock)
    fetcher = make_fetcher(allowed=("127.0.0.1",), cache=cache)
    access = LabelStudioAccess(origin=None)
    address = f"{elsewhere.origin}/a.png"

    first = fetcher.fetch(address, task_id=1, access=access)
    clock.now += 3000
    fetcher.fetch(address, task_id=1, access=access)
    asked_while_fresh = len(elsewhere.asked)
    clock.now += 3000
    again = fetcher.fetch(address, task_id=1, access=access)
    clock.now += 3000
    fetcher.fetch(address, task_id=1, access=access)

    assert asked_while_fresh == 1
    assert again == first
    assert [asked.headers.get("if-none-match") for asked in elsewhere.asked] == [None, '"v1"']


def test_an_old_entry_is_replaced_when_the_image_changed(
    tmp_path: Path, elsewhere: ImageServer, make_fetcher: MakeFetcher
) -> None:
    bodies = iter([b"first", b"second"])
    elsewhere.routes["/a.png"] = lambda asked: Reply(body=next(bodies))
    clock = Clock()
    cache = DiskCache(tmp_path / "cache", max_bytes=1000, life_s=3600, clock=clock)
    fetcher = make_fetcher(allowed=("127.0.0.1",), cache=cache)
    address = f"{elsewhere.origin}/a.png"

    fetcher.fetch(address, task_id=1, access=LabelStudioAccess(origin=None))
    clock.now += 4000
    file = fetcher.fetch(address, task_id=1, access=LabelStudioAccess(origin=None))

    assert file.sha256 == hashlib.sha256(b"second").hexdigest()
