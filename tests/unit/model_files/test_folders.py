"""Folders that are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml_backend.model_files.folders import remove_folder, sweep, written_aside


def test_a_folder_appears_with_all_that_was_written(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder"

    with written_aside(target) as aside:
        (aside / "deep").mkdir()
        (aside / "deep" / "file").write_text("whole")
        assert not target.exists()

    assert (target / "deep" / "file").read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def test_what_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def break_off() -> None:
        with written_aside(tmp_path / "folder") as aside:
            (aside / "file").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept", [True, False], ids=["with a file", "empty"])
def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path, kept: bool) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    if kept:
        (target / "file").write_text("first")

    with pytest.raises(FileExistsError), written_aside(target) as aside:
        (aside / "file").write_text("second")

    assert [path.read_text() for path in target.iterdir()] == ["first"] * kept
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    writing = written_aside(tmp_path / "killed")
    aside = writing.__enter__()
    (aside / "file").write_text("half")
    (tmp_path / "whole").mkdir()

    sweep(tmp_path, older_than_s=3600)
    assert aside.exists()  # somebody may be writing there
    sweep(tmp_path)
    sweep(tmp_path / "not there")

    assert list(tmp_path.iterdir()) == [tmp_path / "whole"]


def test_removing_takes_the_whole_folder_or_does_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder" / "deep").mkdir(parents=True)

    remove_folder(tmp_path / "folder")
    remove_folder(tmp_path / "folder")

    assert list(tmp_path.iterdir()) == []
