"""Cellpose's `_seg.npy` files are read, and nothing in any file is ever run."""

from __future__ import annotations

import contextlib
import os
import pathlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellpose.io import masks_flows_to_seg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_backend.errors import BackendError, ImageDecodeError, ImageTooLarge
from ml_backend.training.cellpose_seg import read_seg
from ml_backend.training.object_npy import read_object
from tests.dataset_folders import picture

LABELS = picture(1)[1]
MOST = 10**6


class Evil:
    """Asks whoever unpickles it to run a command."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._mark}",)


def save(path: Path, thing: Any, protocol: int = 4) -> Path:
    """Write an object as `numpy.save` does, with any pickle protocol."""
    array = np.empty((), object)
    array[()] = thing
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|O", "fortran_order": False, "shape": ()}
        )
        pickle.dump(array, file, protocol=protocol)
    return path


@pytest.fixture
def seg(tmp_path: Path) -> Path:
    """Return a file as Cellpose writes it."""
    flows = [
        np.zeros((*LABELS.shape, 3), np.uint8),
        np.zeros((2, *LABELS.shape), np.float32),
        np.zeros(LABELS.shape, np.float32),
    ]
    # people name files by a Path as well, which is pickled as such
    masks_flows_to_seg(np.zeros(LABELS.shape), LABELS, flows, pathlib.Path(tmp_path / "a.tif"))
    return tmp_path / "a_seg.npy"


def test_what_cellpose_writes_is_read(seg: Path) -> None:
    np.testing.assert_array_equal(read_seg(seg, max_pixels=MOST), LABELS)


def test_what_its_graphical_program_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a_seg.npy"
    contents = {
        "outlines": LABELS.astype(np.uint16),
        "colors": np.zeros((3, 3), np.uint8),
        "masks": LABELS[None].astype(np.uint32),  # one plane of a stack of one
        "filename": "a.tif",
        "flows": [np.zeros((1, 4, 4, 3)), [], None],
        "ismanual": np.zeros(3, bool),
        "manual_changes": [["2024-05-01, 10:00:00", "added mask", [[1, 2], np.int64(7)]]],
        "model_path": 0,
        "flow_threshold": 0.4,
        "normalize_params": {"lowhigh": None, "percentile": [1.0, 99.0], "invert": False},
        "diameter": np.float64(30.0),
    }
    np.save(path, contents)  # type: ignore[arg-type]  # as Cellpose does

    np.testing.assert_array_equal(read_seg(path, max_pixels=MOST), LABELS)


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, ">u2", np.int64, bool])
def test_arrays_of_any_number_type_and_order_are_read(
    tmp_path: Path, protocol: int, kind: Any
) -> None:
    masks = np.asfortranarray(LABELS.astype(kind))

    read = read_seg(save(tmp_path / "x.npy", {"masks": masks}, protocol), max_pixels=MOST)

    np.testing.assert_array_equal(read, masks)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("where", ["masks", "filename", "beside"])
def test_a_file_that_asks_to_run_something_is_refused_and_runs_nothing(
    tmp_path: Path, protocol: int, where: str
) -> None:
    mark = tmp_path / "it-ran"
    contents: Any = {"masks": LABELS, where: Evil(mark)}

    with pytest.raises(ImageDecodeError) as refused:
        read_seg(save(tmp_path / "x_seg.npy", contents, protocol), max_pixels=MOST)

    assert not mark.exists()
    assert "x_seg.npy" in refused.value.message


def test_the_same_file_would_run_something_if_it_were_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    path = save(tmp_path / "x_seg.npy", {"masks": Evil(mark)})

    np.load(path, allow_pickle=True)

    assert mark.exists()


@pytest.mark.parametrize(
    "text",
    [
        b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
        b"\x80\x04\x8c\x05numpy\x8c\x04load\x93.",
        b"\x80\x02cnumpy.core.multiarray\nfromfile\n.",
        b"(i__main__\nThing\n.",
        b"\x80\x02\x82\x01.",  # an entry of the extension registry
        b"\x80\x02Pname\n.",  # a persistent id
        b"\x80\x04]\x94h\x00a" + b"h\x00a" * 10 + b".",  # a list that holds itself
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a text of eight exabytes
        b"\x80\x04B\xff\xff\xff\x7fab.",  # two bytes that say they are two thousand million
        b"\x80\x04r\xff\xff\xff\xff.",  # remembers nothing, under a large number
        b"",
        b"\x80\x04.",
    ],
)
def test_odd_instructions_are_refused(tmp_path: Path, text: bytes) -> None:
    path = save(tmp_path / "x_seg.npy", None)
    header = path.read_bytes().partition(b"\n")[0] + b"\n"
    path.write_bytes(header + text)

    with pytest.raises(ImageDecodeError):
        read_object(path)


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ([1, 2], "no masks"),
        ({"outlines": LABELS}, "no masks"),
        ({"masks": "none"}, "no masks"),
        ({"masks": np.array(["a"])}, "no array of numbers"),
        ({"masks": np.array([None, 1], object)}, "no array of numbers"),
        ({"masks": np.zeros((3, 4, 5), int)}, "3 x 4 x 5"),
    ],
)
def test_files_without_masks_are_refused_with_a_sentence(
    tmp_path: Path, contents: Any, said: str
) -> None:
    with pytest.raises(ImageDecodeError, match=said):
        read_seg(save(tmp_path / "x_seg.npy", contents), max_pixels=MOST)


def test_more_pixels_than_are_allowed_are_refused_before_they_are_read(seg: Path) -> None:
    with pytest.raises(ImageTooLarge):
        read_seg(seg, max_pixels=LABELS.size - 1)


def test_a_shape_that_says_more_than_there_is_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npy", {"masks": np.zeros((96, 97), np.uint16)})
    path.write_bytes(path.read_bytes().replace(b"KaK`", b"K`Kb").replace(b"K`Ka", b"K`Kb"))

    with pytest.raises(ImageDecodeError, match="another size"):
        read_seg(path, max_pixels=MOST)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_a_sentence_and_never_anything_else(
    data: st.DataObject, seg: Path
) -> None:
    content = bytearray(seg.read_bytes())
    first = content.index(b"\n") - 10
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(first, first + 2000))] = data.draw(st.integers(0, 255))
    damaged = seg.with_name("damaged_seg.npy")
    damaged.write_bytes(content[: data.draw(st.integers(first, len(content)))])

    with contextlib.suppress(BackendError):  # and nothing else
        assert read_seg(damaged, max_pixels=MOST).ndim == 2
