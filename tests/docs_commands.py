"""The commands in our documentation, and how each of them is verified.

Every line of every ```bash block must match a row of `TABLE`. A row either runs the command, or
checks what can be checked about it and names the test that runs it for real.
"""

from __future__ import annotations

import functools
import json
import re
import shlex
import tempfile
import textwrap
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import typer
import yaml
from typer.testing import CliRunner

from ml_backend.bootstrap.web import build_web_app
from ml_backend.cli import app
from ml_backend.engines.catalogue import CELLPOSE_MODELS
from ml_backend.service.inference_parameters import read_form_fields
from ml_backend.service.inference_request import UPLOADS, read_json_request
from ml_backend.settings import Settings
from tools.label_studio_server import GUARDS_OFF

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("label_configs/*.md")]
)
SETTINGS = frozenset(name.upper() for name in Settings.model_fields)

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\S*) *\n(?P<text>.*?)^(?P=indent)``` *$",
    re.MULTILINE | re.DOTALL,
)
_ASSIGNMENT = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Fence:
    """A fenced block of a document."""

    document: Path
    line: int  # of its first line
    language: str  # "" when it names none
    text: str

    def __str__(self) -> str:
        """Return where it stands."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of a ```bash block."""

    text: str  # as it is typed, without a comment
    where: str
    variables: dict[str, str]  # set in front of it
    words: tuple[str, ...]

    def __str__(self) -> str:
        """Return it with where it stands."""
        return f"{self.text} ({self.where})"


def fences(document: Path) -> list[Fence]:
    """Return the fenced blocks of a document."""
    text = document.read_text(encoding="utf-8")
    return [
        Fence(
            document=document,
            line=text.count("\n", 0, found.start()) + 2,
            language=found["language"],
            text=textwrap.dedent(found["text"]),
        )
        for found in _FENCE.finditer(text)
    ]


def commands() -> Iterator[Command]:
    """Yield every command of the documentation."""
    for document in DOCUMENTS:
        for fence in fences(document):
            if fence.language == "bash":
                yield from _commands_in(fence)


def _commands_in(fence: Fence) -> Iterator[Command]:
    for line in fence.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        text = re.sub(r"\s+#.*", "", line).strip()
        variables = {}
        while words and (assignment := _ASSIGNMENT.fullmatch(words[0])):
            variables[assignment[1]] = assignment[2]
            words.pop(0)
        yield Command(text=text, where=str(fence), variables=variables, words=tuple(words))


# What is checked about commands that are not run here


def check_settings(command: Command) -> None:
    """Only settings that exist are set in front of it."""
    assert set(command.variables) <= SETTINGS, command


def check_ml_backend(command: Command) -> None:
    """Our command takes these arguments."""
    check_settings(command)
    assert rehearse(command.words[1:]) == 0, command


def check_export(command: Command) -> None:
    """Only settings that exist are exported."""
    names = {word.partition("=")[0] for word in command.words[1:]}
    assert names
    assert names <= SETTINGS, command


def check_make(command: Command) -> None:
    """The target exists."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in command.words[1:]:
        assert re.search(rf"^[^\n:=]*\b{re.escape(target)}\b[^\n:=]*:(?!=)", makefile, re.MULTILINE)


def check_label_studio(command: Command) -> None:
    """The guards are those that the end-to-end tests need switched off."""
    assert command.variables == dict(GUARDS_OFF)
    assert command.words == ("label-studio", "start")


def check_pip(command: Command) -> None:
    """It installs this package with the constraints that the Makefile installs it with."""
    assert command.words == ("pip", "install", ".", "-c", "constraints.txt")
    assert (ROOT / "constraints.txt").is_file()
    assert "install -e . -c constraints.txt" in (ROOT / "Makefile").read_text(encoding="utf-8")


def check_export_extra(command: Command) -> None:
    """The extra is one that the package has."""
    assert command.words == ("pip", "install", ".[export]", "-c", "constraints.txt")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "export" in project["optional-dependencies"]


def check_nothing(_command: Command) -> None:
    """Nothing can be said of it without running it, which the test does that the row names."""


def check_toolkit(command: Command) -> None:
    """It installs what the Makefile installs for the tests, or starts a project as they do."""
    if command.words[0] == "label-studio-ml":
        tested = (ROOT / "tests" / "toolkit_server.py").read_text(encoding="utf-8")
        assert all(f'"{word}"' in tested for word in command.words[1:] if not word.isdigit())
        return
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    wanted = " ".join(word for word in command.words[2:] if word != ".")
    assert wanted in makefile, command


def check_copy(command: Command) -> None:
    """What is copied exists, and the example says what to fill in."""
    assert command.words == ("cp", ".env.example", ".env")
    assert (ROOT / ".env.example").is_file()


def check_compose(command: Command) -> None:
    """The files and services exist, and what runs in a service is a command of ours."""
    words = list(command.words[2:])
    files = []
    while words[0] == "-f":
        files.append(words[1])
        del words[:2]
    services: dict[str, Any] = {}
    for name in files or ["docker-compose.yml"]:
        services |= yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))["services"]
    verb, *rest = words
    rest = [word for word in rest if not word.startswith("-")] if verb != "exec" else rest
    if verb == "exec":
        assert rest[0] in services
        assert rest[1] == "ml-backend"
        assert rehearse(rest[2:]) == 0, command
    elif verb == "logs":
        assert rest
        assert set(rest) <= set(services)
    elif verb == "cp":
        service, _, path = rest[1].partition(":")
        assert any(path.startswith(volume.split(":")[1]) for volume in services[service]["volumes"])
    else:
        assert (verb, rest) == ("up", []), command


def check_download(command: Command) -> None:
    """It fetches a model that we know."""
    assert command.words[-1] in CELLPOSE_MODELS


def check_backup(command: Command) -> None:
    """It names the file of the records."""
    source = Path(command.words[1].replace("$DATA_DIR", "/data"))
    settings = Settings(data_dir=Path("/data"), database_url=None)
    assert f"sqlite:///{source}" == settings.database_address


def check_curl(command: Command) -> None:
    """It asks the default port."""
    port = Settings.model_fields["port"].default
    assert command.words[1].startswith(f"http://localhost:{port}/")


def check_api(command: Command) -> None:
    """It asks the default port for a route that there is, with a body that is JSON."""
    words = _without_headers(command.words[1:])
    if "-o" in words:
        del words[words.index("-o") :]
    *options, address = (word for word in words if word != "-d")
    body = [options.pop(), address] if address.startswith("{") else []
    if body:
        address, text = body
        json.loads(text)
    assert options in ([], ["-X", "POST"]), command
    port = Settings.model_fields["port"].default
    parts = urlsplit(address)
    assert f"{parts.scheme}://{parts.netloc}" == f"http://localhost:{port}"
    path, method = parts.path, "post" if options else "get"
    (operation,) = [
        methods[method]
        for route, methods in api_routes().items()
        if method in methods and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route), path)
    ]
    assert ("requestBody" in operation) == bool(body), command
    named = {parameter["name"] for parameter in operation.get("parameters", ())}
    assert set(parse_qs(parts.query)) <= named, command


def check_infer(command: Command) -> None:
    """It asks the default port for masks, with fields that there are."""
    port = Settings.model_fields["port"].default
    assert command.words[1] == f"http://localhost:{port}/api/v1/infer"
    pairs = list(zip(command.words[2::2], command.words[3::2], strict=True))
    forms = [value.partition("=") for option, value in pairs if option == "-F"]
    bodies = [value for option, value in pairs if option == "-d"]
    assert {option for option, _ in pairs} <= {"-F", "-d", "-o"}
    assert bool(forms) != bool(bodies)
    if bodies:
        read_json_request(bodies[0].encode())
    else:
        assert {value[:1] for name, _, value in forms if name == UPLOADS} == {"@"}
        read_form_fields((name, value) for name, _, value in forms if name != UPLOADS)


def check_unpacking(command: Command) -> None:
    """It unpacks what an export has written."""
    assert command.words[-2:] == ("cells.zip", "cells")


def _without_headers(words: Sequence[str]) -> list[str]:
    """Return curl's arguments without those about headers, which must be ones that we read."""
    left = list(words)
    while "-H" in left:
        index = left.index("-H")
        name = left[index + 1].partition(": ")[0]
        assert name in ("Authorization", "Idempotency-Key")
        del left[index : index + 2]
    return left


def check_token(command: Command) -> None:
    """It catches what a command of ours prints in TOKEN."""
    inner = re.fullmatch(r"TOKEN=\$\(ml-backend (.*)\)", command.text)
    assert inner is not None
    assert rehearse(shlex.split(inner[1])) == 0, command


@functools.lru_cache(maxsize=1)
def api_routes() -> dict[str, Any]:
    """Return the described routes of the web application."""
    with tempfile.TemporaryDirectory() as folder:
        paths: dict[str, Any] = build_web_app(Settings(data_dir=Path(folder))).openapi()["paths"]
    return paths


@dataclass(frozen=True, kw_only=True)
class Row:
    """How commands of one kind are verified."""

    pattern: str  # a regular expression for the whole command, variables in front included
    check: Callable[[Command], None]
    run_by: str  # the file of the test that really runs it


QUICK = "tests/unit/test_documented_commands.py"
TYPED = "tests/e2e/test_typed_commands.py"
CONNECTING = "tests/e2e/test_connecting.py"
SERVING = "tests/running_backend.py"
BY_HAND = ""  # nobody runs it: it changes another machine, or takes gigabytes from the network

TABLE: Sequence[Row] = (
    Row(pattern=r"ml-backend config", check=check_ml_backend, run_by=QUICK),
    Row(pattern=r"ml-backend predict .*", check=check_ml_backend, run_by=TYPED),
    Row(pattern=r"ml-backend doctor( --project \S+)?", check=check_ml_backend, run_by=TYPED),
    Row(pattern=r"ml-backend connect .*", check=check_ml_backend, run_by=CONNECTING),
    Row(
        pattern=r"ml-backend serve --toolkit \S+",
        check=check_ml_backend,
        run_by="tests/e2e/test_toolkit_classes.py",
    ),
    Row(
        pattern=(
            r"(pip install (--no-deps \.|label-studio-ml\S+ .*)|label-studio-ml (init|start) .*)"
        ),
        check=check_toolkit,
        run_by="tests/toolkit_server.py",
    ),
    Row(pattern=r"([A-Z_]+=\S+ )*ml-backend serve", check=check_ml_backend, run_by=SERVING),
    Row(
        pattern=r"([A-Z_]+=\S+ )*ml-backend (web|engine|trainer)",
        check=check_ml_backend,
        run_by="ml_backend/processes/supervisor.py",  # serve starts them so
    ),
    Row(pattern=r"export .*", check=check_export, run_by=SERVING),
    Row(pattern=r"curl http://localhost:\d+/\w+", check=check_curl, run_by=TYPED),
    Row(
        pattern=r"curl http://localhost:\d+/api/v1/infer .*",
        check=check_infer,
        run_by="tests/http/test_documented_infer.py",
    ),
    Row(
        pattern=(
            r"curl (-X (POST|DELETE) )?(-H ('.*?'|\".*?\") )*'?http://localhost:\d+/api/v1/\S+"
            r"( -d '.*')?( -o \S+)?"
        ),
        check=check_api,
        run_by="tests/http/test_api.py",
    ),
    Row(
        pattern=r"ml-backend tokens \w+.*",
        check=check_ml_backend,
        run_by="tests/unit/cli/test_tokens_command.py",
    ),
    Row(
        pattern=r"TOKEN=.*",
        check=check_token,
        run_by="tests/unit/cli/test_tokens_command.py",
    ),
    Row(
        pattern=r"python -m zipfile -e \S+ \S+",
        check=check_unpacking,
        run_by="tests/unit/cli/test_projects_command.py",
    ),
    Row(
        pattern=r"ml-backend projects \w+.*",
        check=check_ml_backend,
        run_by="tests/unit/cli/test_projects_command.py",
    ),
    Row(
        pattern=r"ml-backend (--server \S+ sessions|infer) .*",
        check=check_ml_backend,
        run_by="tests/http/test_commands_of_a_server.py",
    ),
    Row(
        pattern=r"ml-backend train .*",
        check=check_ml_backend,
        run_by="tests/unit/cli/test_train_command.py",
    ),
    Row(
        pattern=r"ml-backend sessions \w+.*",
        check=check_ml_backend,
        run_by="tests/unit/cli/test_sessions_command.py",
    ),
    Row(
        pattern=r"ml-backend models (activate|rollback|archive|delete|changes|clean-up)\b.*",
        check=check_ml_backend,
        run_by="tests/unit/cli/test_model_changes_command.py",
    ),
    Row(
        pattern=r"ml-backend models (list|show|download|upload|pictures)\b.*",
        check=check_ml_backend,
        run_by="tests/unit/cli/test_models_command.py",
    ),
    Row(
        pattern=r"ml-backend (embed|cluster) .*",
        check=check_ml_backend,
        run_by="tests/e2e/test_classification.py",
    ),
    Row(pattern=r"make (demo|demo-check)", check=check_make, run_by="tools/demo.py"),
    Row(pattern=r"make test", check=check_make, run_by=".ci/run"),
    Row(pattern=r"make [a-z-]+", check=check_make, run_by="Makefile"),
    Row(
        pattern=r"ML_BLOCK_LOCAL_IP=false SSRF_PROTECTION_ENABLED=false label-studio start",
        check=check_label_studio,
        run_by="tools/label_studio_server.py",  # the server of the end-to-end tests
    ),
    Row(
        pattern=r"ml-backend export .*",
        check=check_ml_backend,
        run_by="tests/unit/cli/test_export_command.py",
    ),
    Row(
        pattern=r"bioimageio (test|predict) .*",
        check=check_nothing,
        run_by="tests/unit/cli/test_export_command.py",
    ),
    Row(
        pattern=r"unzip nuclei\.zip .*|python masks\.py .*",
        check=check_nothing,
        run_by="tests/unit/cli/test_export_command.py",
    ),
    Row(
        pattern=r"python -m cellpose .*",
        check=check_nothing,
        run_by="tests/unit/service/test_cellpose_export.py",
    ),
    Row(
        pattern=r"pip install '\.\[export\]' -c constraints\.txt",
        check=check_export_extra,
        run_by="Makefile",  # the tests' environment has it
    ),
    Row(pattern=r"pip install \. -c constraints\.txt", check=check_pip, run_by="Makefile"),
    Row(pattern=r"cp \.env\.example \.env", check=check_copy, run_by=BY_HAND),
    Row(pattern=r"docker compose .*", check=check_compose, run_by=BY_HAND),
    Row(
        pattern=r"ml-backend models fetch \w+",
        check=check_download,
        run_by="tests/unit/cli/test_models_command.py",
    ),
    Row(pattern=r"sqlite3 \S+ \"\.backup \S+\"", check=check_backup, run_by=TYPED),
)


def row_of(command: Command) -> Row:
    """Return how a command is verified.

    Raises:
        AssertionError: nobody has said so yet.
    """
    for row in TABLE:
        if re.fullmatch(row.pattern, command.text):
            return row
    raise AssertionError(f"nothing verifies this command: {command}; add a row to TABLE")


def rehearse(arguments: Sequence[str]) -> int:
    """Return the exit code of `ml-backend` for arguments that are read but not acted upon."""
    return CliRunner().invoke(_silent_app(), list(arguments)).exit_code


@functools.lru_cache(maxsize=1)
def _silent_app() -> typer.Typer:
    """Return our command line with commands that take their arguments and do nothing."""
    return _silent(app)


def _silent(group: typer.Typer) -> typer.Typer:
    silent = typer.Typer()
    about: Any = group.registered_callback
    silent.callback(invoke_without_command=about.invoke_without_command)(_silenced(about.callback))
    for command in group.registered_commands:
        function = command.callback
        assert function is not None
        silent.command(command.name or function.__name__.replace("_", "-"))(_silenced(function))
    for registered in group.registered_groups:
        inner: Any = registered.typer_instance
        silent.add_typer(_silent(inner), name=registered.name)
    return silent


def _silenced(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def nothing(**_: object) -> None:
        return None

    return nothing
