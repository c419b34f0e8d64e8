"""Our commands with a server named: they ask it, and leave the records of this machine alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import structlog
import tifffile
from click.testing import Result
from typer.testing import CliRunner

from ml_backend.callers import Role
from ml_backend.cli import app
from ml_backend.errors import ImageDecodeError
from ml_backend.learning import SessionState
from ml_backend.store.database import Database
from ml_backend.store.tokens import Tokens
from tests.fakes import FakeEngineAnswer
from tests.http.conftest import Backend, MakeBackend
from tests.http.test_api import claimed, rows_of
from tests.http.test_models_api import trained
from tests.uvicorn_server import uvicorn_server

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """Undo what a command set up: its standard error is closed when the test is over."""
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def backend(make_backend: MakeBackend) -> Backend:
    """Return an application that a project is connected to."""
    backend = make_backend()
    assert backend.setup("1.2").status_code == 200
    return backend


@pytest.fixture
def url(backend: Backend) -> Iterator[str]:
    """Yield the address that the application is served at."""
    with uvicorn_server(backend.app) as url:
        yield url


@pytest.fixture
def token(backend: Backend) -> str:
    """Return a token of an admin."""
    database: Database = backend.own.projects._database
    return Tokens(database).create("anna", Role.ADMIN)[1]


@pytest.fixture
def run(url: str, token: str, tmp_path: Path) -> Run:
    """Return what runs commands with the server in the environment."""

    def run(*arguments: str, **environment: str) -> Result:
        known = {"ML_BACKEND_URL": url, "ML_BACKEND_TOKEN": token, "COLUMNS": "300"}
        here = {"DATA_DIR": str(tmp_path / "here"), **known, **environment}
        return CliRunner(env=here).invoke(app, arguments)

    return run


def test_trainings_of_the_server_are_steered(run: Run, backend: Backend, tmp_path: Path) -> None:
    started = run("sessions", "start", "1", "--epochs", "3")
    sessions = rows_of(backend)
    (session,) = sessions.find()
    listed = run("sessions", "list", "--owner", "anna")
    sessions.finish(claimed(sessions, session), SessionState.STOPPED, message="It was stopped.")
    watched = run("sessions", "watch", session.id)
    curves = run("sessions", "curves", session.id, "--output", str(tmp_path / "curves.png"))
    deleted = run("sessions", "delete", session.id)

    assert session.id in started.stdout
    assert (session.owner, session.parameters.n_epochs) == ("anna", 3)
    assert listed.stdout.splitlines()[1].split()[0] == session.id
    assert "stopped: It was stopped." in watched.stdout
    assert watched.exit_code == 1
    assert curves.exit_code == deleted.exit_code == 0
    assert sessions.find() == []
    assert not (tmp_path / "here").exists(), "the records of this machine are left alone"


def test_models_and_projects_of_the_server_are_shown_and_changed(
    run: Run, backend: Backend
) -> None:
    trained(backend, "v1")

    listed = run("models", "list")
    activated = run("models", "activate", "v1")
    changes = run("models", "changes")
    projects = run("projects", "list")

    assert {"nuclei-1", "v1"} <= {line.split()[0] for line in listed.stdout.splitlines()}
    assert "is asked for" in activated.stdout
    assert "anna activated v1" in changes.stdout
    assert "http://ls.example" in projects.stdout


def test_images_are_segmented_by_the_server(run: Run, backend: Backend, tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(tmp_path / name, np.zeros((4, 4), np.uint8))
    name = {"content-disposition": 'attachment; filename="a_masks.tif"'}
    backend.engine.asked_answers["/infer"] = FakeEngineAnswer(body=[b"II*"], headers=name)
    backend.engine.failures.append(ImageDecodeError("b.tif is no readable image."))
    out = tmp_path / "out"

    done = run(
        *("infer", str(tmp_path / "b.tif"), str(tmp_path / "a.tif"), "--output", str(out)),
        *("--diameter", "30", "--channels", "0,2", "--model", "v1"),
    )

    (_, _, sent) = backend.engine.asked[-1]
    assert done.exit_code == 1
    assert "b.tif is no readable image." in done.stderr
    assert "1 of 2 images" in done.stderr
    assert f"-> {out / 'a_masks.tif'}" in done.stdout
    assert (out / "a_masks.tif").read_bytes() == b"II*"
    for field, value in (("diameter", "30"), ("channels", "[0, 2]"), ("format", "tiff")):
        assert f'name="{field}"\r\n\r\n{value}'.encode() in sent


def test_a_model_is_exported_by_the_server(run: Run, backend: Backend, tmp_path: Path) -> None:
    backend.engine.asked_answers["/export"] = FakeEngineAnswer(body=[b"PK"])
    output = tmp_path / "nuclei.zip"

    done = run(
        *("export", "nuclei-1", "--output", str(output), "--author", "A. Author, An Institute"),
        *("--citation", "A paper, doi:10.1234/5"),
    )

    (_, _, sent) = backend.engine.asked[-1]
    assert done.exit_code == 0, done.output
    assert output.read_bytes() == b"PK"
    assert b'"affiliation":"An Institute"' in sent
    assert b'"doi":"10.1234/5"' in sent


def test_the_option_comes_before_the_environment(run: Run, url: str) -> None:
    nobody = "http://127.0.0.1:9"

    by_option = run("--server", url, "sessions", "list", ML_BACKEND_URL=nobody)
    by_environment = run("sessions", "list", ML_BACKEND_URL=nobody)

    assert by_option.exit_code == 0
    assert by_environment.exit_code == 1
    assert f"Nobody answers at {nobody}" in by_environment.stderr
    assert len(by_environment.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("environment", "code", "reason"),
    [
        ({"ML_BACKEND_TOKEN": "mlb_wrong_token"}, 1, "The token is wrong or revoked"),
        ({"ML_BACKEND_TOKEN": ""}, 1, "Nothing says who asks"),
        ({"ML_BACKEND_URL": "localhost"}, 78, "ML_BACKEND_URL"),
    ],
)
def test_what_is_refused_is_one_sentence(
    run: Run, environment: dict[str, str], code: int, reason: str
) -> None:
    failed = run("sessions", "list", **environment)

    assert failed.exit_code == code
    assert reason in failed.stderr
    assert len(failed.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "command", [("config",), ("tokens", "list"), ("models", "fetch", "cells-9")]
)
def test_what_a_server_cannot_be_asked_for_is_refused(
    run: Run, url: str, command: tuple[str, ...]
) -> None:
    failed = run("--server", url, *command)

    assert failed.exit_code == 2
    assert "works on this machine only" in failed.stderr
