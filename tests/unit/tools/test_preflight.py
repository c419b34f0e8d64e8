"""What is said before anything is downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.preflight import announce, main, python_problem


def test_the_python_that_runs_the_tests_will_do() -> None:
    assert python_problem() is None
    assert main(["--python-only"]) == 0


@pytest.mark.parametrize("version", [(3, 10), (3, 14)])
def test_another_python_is_named(version: tuple[int, int]) -> None:
    problem = python_problem(version)

    assert problem is not None
    assert f"this is {version[0]}.{version[1]}" in problem


def test_it_says_what_it_will_download_and_how_much(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert announce(".venv", root=tmp_path, free_gb=100) is None
    assert "PyTorch" in capsys.readouterr().out


def test_a_full_disk_stops_it_with_the_room_that_is_needed(tmp_path: Path) -> None:
    problem = announce(".venv", root=tmp_path, free_gb=2.5)

    assert problem is not None
    assert "GB of free disk are needed" in problem
    assert "2.5 GB are free" in problem


def test_an_environment_that_is_there_is_brought_up_to_date_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".installed").touch()

    assert announce(".venv", root=tmp_path, free_gb=0.1) is None
    assert capsys.readouterr().out == ""
