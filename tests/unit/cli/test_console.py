"""What commands print comes out as it is."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from ml_backend.cli import app
from ml_backend.cli.console import fail


def test_brackets_in_a_message_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        fail("[/data/a[1].png] cannot be read; install x[test].")

    assert "[/data/a[1].png] cannot be read; install x[test]." in capsys.readouterr().err


def test_brackets_in_settings_are_printed() -> None:
    shown = CliRunner(env={"MODEL": "/m[1]/[red]x", "COLUMNS": "300"}).invoke(app, ["config"])

    assert "/m[1]/[red]x" in shown.output


def test_files_whose_results_would_replace_each_other_are_refused_before_anything_is_loaded() -> (
    None
):
    refused = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["predict", "x[1].png", "x[1].tif"])

    assert refused.exit_code == 1
    assert "x[1].png and x[1].tif would both be written" in refused.output
