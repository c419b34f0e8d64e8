"""Every command in the documentation is verified, and what takes a second is typed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.docs_commands import BY_HAND, ROOT, SETTINGS, TABLE, Command, commands, row_of
from tests.terminal import Terminal

BY_TEXT = {command.text: command for command in commands()}


@pytest.mark.parametrize("text", sorted(BY_TEXT))
def test_a_command_is_verified(text: str) -> None:
    row_of(BY_TEXT[text]).check(BY_TEXT[text])


def test_every_row_of_the_table_is_used_and_names_a_file_that_exists() -> None:
    used = {row_of(command).pattern for command in BY_TEXT.values()}
    named = {row.run_by for row in TABLE} - {BY_HAND}

    assert {row.pattern for row in TABLE} - used == set()
    assert {name for name in named if not (ROOT / name).is_file()} == set()


def test_an_unknown_command_is_noticed() -> None:
    command = Command(text="rm -rf /", where="nowhere", variables={}, words=("rm", "-rf", "/"))

    with pytest.raises(AssertionError, match="nothing verifies"):
        row_of(command)


def test_the_installed_program_is_the_one_that_is_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert project["scripts"] == {"ml-backend": "ml_backend.cli:app"}


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    """Return a shell in an empty folder, where nothing is set."""
    return Terminal(tmp_path)


def test_config_shows_every_setting_in_full(terminal: Terminal) -> None:
    done = terminal.type("ml-backend config", WEBHOOK_SECRET="hush")

    assert done.returncode == 0, done.stderr
    assert {name for name in SETTINGS if name not in done.stdout} == set()
    assert "hush" not in done.stdout


def test_wrong_settings_are_refused_with_a_sentence(terminal: Terminal) -> None:
    done = terminal.type("ml-backend serve", PORT="99999")

    assert done.returncode == 78
    assert "PORT" in done.stderr
    assert "Traceback" not in done.stderr
