"""Vectors come back as they were, and the cache never fails its user."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ml_backend.engines import embedding_cache as embedding_cache_module
from ml_backend.engines.embedding_cache import TOUCHED_EVERY_S, EmbeddingCache

EMBEDDER = "ab" * 32


def vectors(*keys: str, width: int = 8) -> dict[str, npt.NDArray[np.float32]]:
    """Return a vector for each key, which depends on the key only."""
    return {
        key: np.random.default_rng(list(key.encode())).normal(size=width).astype(np.float32)
        for key in keys
    }


def equal(
    one: dict[str, npt.NDArray[np.float32]], other: dict[str, npt.NDArray[np.float32]]
) -> bool:
    """Return whether both hold the same bits under the same keys."""
    return one.keys() == other.keys() and all(
        one[key].tobytes() == other[key].tobytes() for key in one
    )


class Clock:
    """Time that passes when it is told to."""

    now = 1e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a cache may lie; its folder is not there yet."""
    return tmp_path / "cache" / "embeddings.sqlite3"


@pytest.fixture
def cache(path: Path) -> Iterator[EmbeddingCache]:
    """An empty cache of 10 MB."""
    opened = EmbeddingCache(path, 10)
    yield opened
    opened.close()


def test_vectors_come_back_and_others_are_missing(cache: EmbeddingCache) -> None:
    cache.put_many(vectors("a", "b"), EMBEDDER)

    found = cache.get_many(["b", "c", "a", "b"], EMBEDDER)

    assert equal(found, vectors("a", "b"))
    assert found["a"].flags.writeable
    assert cache.get_many([], EMBEDDER) == {}


def test_it_counts_what_it_was_asked_for(cache: EmbeddingCache) -> None:
    cache.put_many(vectors("a", "b"), EMBEDDER)

    cache.get_many(["b", "c", "a", "b"], EMBEDDER)
    cache.get_many([], EMBEDDER)

    assert cache.asked == (2, 1)


def test_embedders_do_not_see_each_others_vectors(cache: EmbeddingCache) -> None:
    cache.put_many(vectors("a"), EMBEDDER)

    assert cache.get_many(["a"], "cd" * 32) == {}


def test_a_vector_under_the_same_key_is_replaced(cache: EmbeddingCache) -> None:
    cache.put_many(vectors("a", width=4), EMBEDDER)
    cache.put_many(vectors("a", width=6), EMBEDDER)

    assert equal(cache.get_many(["a"], EMBEDDER), vectors("a", width=6))


def test_vectors_outlive_the_process_that_kept_them(path: Path, cache: EmbeddingCache) -> None:
    cache.put_many(vectors("a"), EMBEDDER)
    cache.close()

    again = EmbeddingCache(path, 10)
    assert equal(again.get_many(["a"], EMBEDDER), vectors("a"))
    again.close()


def test_a_closed_cache_opens_again_when_it_is_used(cache: EmbeddingCache) -> None:
    cache.put_many(vectors("a"), EMBEDDER)
    cache.close()

    assert equal(cache.get_many(["a"], EMBEDDER), vectors("a"))


@settings(max_examples=20, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=20).filter(lambda key: "\0" not in key),
        arrays(np.float32, st.integers(0, 5), elements=st.floats(width=32)),
        max_size=5,
    )
)
def test_any_key_and_any_numbers_come_back(
    tmp_path_factory: pytest.TempPathFactory, kept: dict[str, npt.NDArray[np.float32]]
) -> None:
    cache = EmbeddingCache(tmp_path_factory.mktemp("cache") / "embeddings.sqlite3", 10)
    cache.put_many(kept, EMBEDDER)

    assert equal(cache.get_many(kept, EMBEDDER), kept)
    cache.close()


def test_more_keys_than_one_query_takes_are_found(cache: EmbeddingCache) -> None:
    many = vectors(*map(str, range(2500)), width=2)
    cache.put_many(many, EMBEDDER)

    assert equal(cache.get_many(many, EMBEDDER), many)


# size


def kept(cache: EmbeddingCache, count: int) -> list[int]:
    """Return which of the numbered vectors are there."""
    return sorted(map(int, cache.get_many(map(str, range(count)), EMBEDDER)))


def test_what_was_not_used_longest_leaves_first_and_the_file_stays_small(path: Path) -> None:
    clock = Clock()
    cache = EmbeddingCache(path, 1, clock=clock)
    for start in range(0, 1000, 100):  # 2 kB each
        cache.put_many(vectors(*map(str, range(start, start + 100)), width=500), EMBEDDER)
        clock.now += TOUCHED_EVERY_S
        cache.get_many(["7"], EMBEDDER)

    found = kept(cache, 1000)
    cache.close()

    assert 7 in found
    assert found[-1] == 999
    assert 300 < len(found) < 500
    assert found[1:] == list(range(found[1], 1000))
    assert path.stat().st_size < 1.3e6


def test_a_vector_in_use_is_touched_at_most_once_an_hour(path: Path) -> None:
    clock = Clock()
    cache = EmbeddingCache(path, 10, clock=clock)
    cache.put_many(vectors("a"), EMBEDDER)

    def touched() -> int:
        with sqlite3.connect(path) as database:
            (found,) = database.execute("SELECT touched FROM embeddings").fetchone()
        database.close()
        return int(found)

    clock.now += TOUCHED_EVERY_S - 1
    cache.get_many(["a"], EMBEDDER)
    assert touched() == 1e9
    clock.now += 1
    cache.get_many(["a"], EMBEDDER)
    assert touched() == 1e9 + TOUCHED_EVERY_S
    cache.close()


def test_a_limit_smaller_than_anything_keeps_nothing_and_goes_on(path: Path) -> None:
    cache = EmbeddingCache(path, 0.001)
    for _ in range(3):
        cache.put_many(vectors("a", "b"), EMBEDDER)

    assert cache.get_many(["a"], EMBEDDER) == {}
    cache.close()


# damage


def test_a_file_that_is_none_of_ours_is_set_aside(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    cache = EmbeddingCache(path, 10)

    assert cache.get_many(["a"], EMBEDDER) == {}
    cache.put_many(vectors("a"), EMBEDDER)

    assert equal(cache.get_many(["a"], EMBEDDER), vectors("a"))
    assert path.with_name(path.name + ".damaged").read_bytes().startswith(b"no database")
    cache.close()


def test_a_database_with_another_table_is_set_aside(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE embeddings (key TEXT)")
    database.close()
    cache = EmbeddingCache(path, 10)

    cache.put_many(vectors("a"), EMBEDDER)

    assert equal(cache.get_many(["a"], EMBEDDER), vectors("a"))
    cache.close()


def test_a_file_that_is_damaged_while_it_is_used_is_begun_anew(path: Path) -> None:
    cache = EmbeddingCache(path, 10)
    cache.put_many(vectors(*map(str, range(500)), width=100), EMBEDDER)
    cache.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    other = EmbeddingCache(path, 10)

    for opened in (cache, other):
        assert opened.get_many(["1"], EMBEDDER) == {}
    cache.put_many(vectors("a"), EMBEDDER)

    for opened in (cache, other):
        assert equal(opened.get_many(["a"], EMBEDDER), vectors("a"))
        opened.close()


def test_another_process_that_set_the_file_aside_is_followed(path: Path) -> None:
    cache = EmbeddingCache(path, 10)
    cache.put_many(vectors("a"), EMBEDDER)
    os.replace(path, path.with_name("aside"))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink()

    assert cache.get_many(["a"], EMBEDDER) == {}
    cache.put_many(vectors("b"), EMBEDDER)

    other = EmbeddingCache(path, 10)
    assert equal(other.get_many(["a", "b"], EMBEDDER), vectors("b"))
    other.close()
    cache.close()


def test_a_vector_whose_bytes_changed_is_missing_and_may_be_kept_again(
    path: Path, cache: EmbeddingCache
) -> None:
    cache.put_many(vectors("a", "b"), EMBEDDER)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE embeddings SET vector = zeroblob(32) WHERE key = 'a'")
    database.close()

    assert equal(cache.get_many(["a", "b"], EMBEDDER), vectors("b"))
    cache.put_many(vectors("a"), EMBEDDER)
    assert equal(cache.get_many(["a"], EMBEDDER), vectors("a"))


def test_a_folder_that_cannot_be_made_fails_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = EmbeddingCache(tmp_path / "file" / "embeddings.sqlite3", 10)

    cache.put_many(vectors("a"), EMBEDDER)

    assert cache.get_many(["a"], EMBEDDER) == {}


def test_a_writer_that_waits_too_long_gives_up_and_readers_do_not_wait(
    path: Path, cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_cache_module, "WAITS_TO_WRITE_S", 0.05)
    clock = Clock()
    cache.put_many(vectors("a"), EMBEDDER)
    impatient = EmbeddingCache(path, 10, clock=clock)
    clock.now += 2 * TOUCHED_EVERY_S  # so that reading wants to touch
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    impatient.put_many(vectors("b"), EMBEDDER)

    assert equal(impatient.get_many(["a", "b"], EMBEDDER), vectors("a"))
    other.execute("ROLLBACK")
    other.close()
    impatient.put_many(vectors("b"), EMBEDDER)
    assert equal(impatient.get_many(["a", "b"], EMBEDDER), vectors("a", "b"))
    impatient.close()


# many at once


def test_many_threads_share_a_cache(cache: EmbeddingCache) -> None:
    ready = threading.Barrier(8)

    def work(number: int) -> bool:
        mine = vectors(*(f"{number}-{i}" for i in range(30)))
        ready.wait()
        for key, vector in mine.items():
            cache.put_many({key: vector}, EMBEDDER)
            cache.get_many(mine, EMBEDDER)
        return equal(cache.get_many(mine, EMBEDDER), mine)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


WRITE = """
import sys, pathlib, numpy as np
from ml_backend.engines.embedding_cache import EmbeddingCache
cache = EmbeddingCache(pathlib.Path(sys.argv[1]), 100)
print("ready", flush=True)
for start in range(int(sys.argv[2]), int(sys.argv[3]), 20):
    keys = range(start, start + 20)
    cache.put_many({str(key): np.full(200, key, np.float32) for key in keys}, "ab" * 32)
    print(start, flush=True)
"""


def writer(path: Path, first: int, last: int) -> subprocess.Popen[str]:
    """Return a process that keeps numbered vectors, twenty at a time."""
    command = [sys.executable, "-c", WRITE, str(path), str(first), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_many_processes_share_a_cache(path: Path, cache: EmbeddingCache) -> None:
    writers = [writer(path, first, first + 400) for first in (0, 400, 800)]
    for process in writers:
        process.communicate(timeout=60)

    found = cache.get_many(map(str, range(1200)), EMBEDDER)

    assert len(found) == 1200
    assert all((vector == float(key)).all() for key, vector in found.items())


def test_a_killed_writer_leaves_whole_transactions(path: Path, cache: EmbeddingCache) -> None:
    process = writer(path, 0, 10**6)
    assert process.stdout is not None
    while process.stdout.readline().strip() != "200":
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()

    found = kept(cache, 10_000)

    assert found == list(range(len(found)))
    assert len(found) >= 220
    assert len(found) % 20 == 0
    cache.put_many(vectors("a"), EMBEDDER)
    assert equal(cache.get_many(["a"], EMBEDDER), vectors("a"))


def _in_a_fork(cache: EmbeddingCache) -> None:
    found = cache.get_many(["a"], EMBEDDER)
    cache.put_many(vectors("b"), EMBEDDER)
    os._exit(0 if equal(found, vectors("a")) else 1)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_uses_a_connection_of_its_own(cache: EmbeddingCache) -> None:
    cache.put_many(vectors("a"), EMBEDDER)
    cache.get_many(["a"], EMBEDDER)

    child = multiprocessing.get_context("fork").Process(target=_in_a_fork, args=(cache,))
    child.start()
    child.join(30)

    assert child.exitcode == 0
    assert equal(cache.get_many(["a", "b"], EMBEDDER), vectors("a", "b"))
