"""`ml-backend tokens`: who may call the API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ml_backend.callers import Role
from ml_backend.cli import app
from ml_backend.store.database import Database
from ml_backend.store.tokens import Tokens


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Return what runs `ml-backend tokens` on records that need not be there yet."""
    environment = {"DATA_DIR": str(tmp_path), "COLUMNS": "40", "LOG_LEVEL": "ERROR"}

    def run(*arguments: str, **more: str) -> Result:
        return CliRunner(env={**environment, **more}).invoke(app, ["tokens", *arguments])

    return run


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[Tokens]:
    """Yield what is in the records."""
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    yield Tokens(database)
    database.close()


def test_a_token_is_alone_on_standard_output(run: Any, tokens: Tokens) -> None:
    made = run("create", "anna", "--role", "train")

    known = tokens.authenticate(made.stdout.removesuffix("\n"))
    assert made.exit_code == 0
    assert known is not None
    assert (known.name, known.role) == ("anna", Role.TRAIN)
    assert "cannot be shown again" in made.stderr
    assert made.stdout.strip() not in made.stderr


def test_a_list_shows_everything_but_secrets(run: Any) -> None:
    text = run("create", "anna", "--role", "predict").stdout.strip()
    run("create", "bold", "--role", "admin")
    run("revoke", "bold")

    listed = run("list")

    head, first, second = listed.stdout.splitlines()
    assert head.split() == ["name", "role", "made", "last", "used", "state"]
    assert [first.split()[:2], second.split()[:2]] == [["bold", "admin"], ["anna", "predict"]]
    assert "revoked 20" in first
    assert second.rstrip().endswith("never      in use")
    assert text.split("_")[2] not in listed.output


def test_without_tokens_the_list_says_who_is_answered(run: Any) -> None:
    listed = run("list")

    assert (listed.exit_code, listed.stdout) == (0, "")
    assert "this machine only" in listed.stderr


def test_the_last_token_to_go_says_what_that_means(run: Any, tokens: Tokens) -> None:
    text = run("create", "anna", "--role", "admin").stdout.strip()
    run("create", "bert", "--role", "admin")

    first, last = run("revoke", "bert"), run("revoke", "anna")

    assert (first.stdout, first.stderr) == ("token bert is revoked\n", "")
    assert "this machine only" in last.stderr
    assert tokens.authenticate(text) is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("create", "a b", "--role", "admin"), "letters, digits"),
        (("create", "anna", "--role", "admin"), "revoke it first"),
        (("create", "operator", "--role", "admin"), "BASIC_AUTH_USER"),
        (("revoke", "nobody"), "tokens list"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    run: Any, arguments: tuple[str, ...], sentence: str
) -> None:
    basic = {"BASIC_AUTH_USER": "operator", "BASIC_AUTH_PASS": "secret"}
    run("create", "anna", "--role", "predict")

    answer = run(*arguments, **basic)

    assert (answer.exit_code, answer.stdout) == (1, "")
    assert sentence in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_role_must_be_one_of_three(run: Any, tokens: Tokens) -> None:
    answers = [run("create", "anna"), run("create", "anna", "--role", "root")]

    assert [answer.exit_code for answer in answers] == [2, 2]
    assert run("list").stdout == ""
