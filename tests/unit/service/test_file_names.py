"""Names from outside never lead anywhere, and stay readable."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_backend.service.file_names import distinct_stems, safe_name


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("cells.tif", "cells.tif"),
        ("my cells (2).tif", "my_cells_2_.tif"),
        ("../../etc/passwd", "passwd"),
        ("C:\\images\\a.png", "a.png"),
        ("/abs/b.png", "b.png"),
        ("..", ""),
        (".hidden", "hidden"),
        ("", ""),
        ("Zellkörper-β.ome.tif", "Zellkörper-β.ome.tif"),
        ("a\x00b\nc.png", "a_b_c.png"),
        ("con.png", "_con.png"),
        ("x" * 300 + ".tif", "x" * 96 + ".tif"),
        ("half \ud83d emoji.png", "half_emoji.png"),
    ],
)
def test_a_name_keeps_what_is_harmless(name: str, kept: str) -> None:
    assert safe_name(name) == kept


@given(names=st.lists(st.text(max_size=40) | st.sampled_from(["a.png", "A.PNG", "a.tif", ".."]),
                      max_size=12))  # fmt: skip
def test_stems_are_distinct_names_of_files_on_any_system(names: list[str]) -> None:
    stems = distinct_stems(names)

    assert len(stems) == len(names)
    assert len({stem.lower() for stem in stems}) == len(names)
    for stem in stems:
        assert stem
        assert PurePosixPath(stem).name == stem
        assert PureWindowsPath(stem).name == stem
        assert stem.isprintable()
        assert len(stem) < 120


def test_equal_names_are_numbered() -> None:
    assert distinct_stems(["a.png", "b/a.png", "A.tif", "a-2.png", "..", "x.ome.tif"]) == [
        "a",
        "a-2",
        "A-3",
        "a-2-2",
        "image-5",
        "x",
    ]
