"""Arrays in files that are whole, mapped into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml_backend.training.mapped_array import map_array, save_array


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("kind", ["bool", "uint8", ">u2", "int32", "float32"])
@pytest.mark.parametrize("is_turned", [False, True])
def test_an_array_comes_back_as_it_was(tmp_path: Path, kind: str, is_turned: bool) -> None:
    array = (np.arange(3 * 5 * 7) % 50).reshape(3, 5, 7).astype(kind)
    array = array.T if is_turned else array
    save_array(tmp_path / "a.npy", array)

    found = map_array(tmp_path / "a.npy")

    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype
    assert not found.flags.writeable
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_many_arrays_need_no_open_files(tmp_path: Path) -> None:
    save_array(tmp_path / "a.npy", np.ones(10))
    before = open_files()

    arrays = [map_array(tmp_path / "a.npy") for _ in range(50)]

    assert open_files() == before
    assert sum(float(array.sum()) for array in arrays) == 500


@pytest.mark.parametrize("content", [b"", b"\0" * 208, None])
def test_a_damaged_file_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.npy"
    save_array(path, np.ones(10))
    path.write_bytes(path.read_bytes()[:-8] if content is None else content)

    with pytest.raises((EOFError, ValueError)):
        map_array(path)


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    unwritable: Any = np.array([object()])

    with pytest.raises(ValueError, match="Object arrays"):
        save_array(tmp_path / "a.npy", unwritable)

    assert list(tmp_path.iterdir()) == []
