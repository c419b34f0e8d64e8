"""Writes the pages of docs/reference/ that say what the code says.

python tools/write_reference.py            writes them
python tools/write_reference.py --check    says which are out of date, exits with 1 then
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # started as a script

import typer  # noqa: E402 - after the path is set

from ml_backend.cli import app  # noqa: E402
from ml_backend.domain import ControlTag  # noqa: E402
from ml_backend.engines.catalogue import built_in_networks, model_names  # noqa: E402
from ml_backend.errors import BackendError  # noqa: E402
from ml_backend.labelstudio.learning_options import LEARNING_OPTIONS  # noqa: E402
from ml_backend.labelstudio.options import (  # noqa: E402
    CHOICES_OPTIONS,
    CLUSTER_OPTIONS,
    OPTIONS,
    Option,
)
from ml_backend.model_files.architectures import RESIDUAL_UNET  # noqa: E402
from ml_backend.recipes import ADAPTER_LEARNING_RATE  # noqa: E402
from ml_backend.service.training_parameters import PARAMETERS  # noqa: E402
from ml_backend.settings import Settings  # noqa: E402
from ml_backend.web.app import STATUS_BY_CODE  # noqa: E402

FOLDER = ROOT / "docs" / "reference"
WRITTEN_BY = "<!-- Written by tools/write_reference.py: change the code, then run it again. -->"


def settings_page() -> str:
    """Return the page of all environment variables."""
    rows = [
        (f"`{variable}`", f"`{default}`" if default else "", description)
        for variable, default, description in Settings.describe()
    ]
    return _page(
        "Settings",
        """\
Every setting is an environment variable. `ml-backend config` shows the values that hold now, with
secrets masked. A variable that is set but empty counts as not set. What cannot be right is refused
at the start, with a sentence for every variable concerned.""",
        _table(("variable", "default", "meaning"), rows),
    )


def tag_options_page() -> str:
    """Return the page of all `model_*` attributes."""
    heads = ("attribute", "value", "without it", "meaning")
    own = ", ".join(f"`{network.name}`" for network in built_in_networks())
    others = ", ".join(f"`{name}`" for name in model_names() if f"`{name}`" not in own)
    tags = "\n".join(f"`{tag.value}`," for tag in ControlTag).removesuffix(",")
    return _page(
        "Options in the label config",
        f"""\
These tags are fed with masks when their `toName` is an `Image` tag:

{tags}.

The attributes below go onto such a tag. On its `Labels` tag, on its `Image` tag or on the root tag
they hold for all controls that belong there; the nearest one wins, in this order: control,
`Labels`, `Image`, root. A value that is not allowed makes the label config unusable, and Settings >
Model in Label Studio shows why; an unknown attribute is ignored, with a warning in
`ml-backend doctor --project`. What they do to the picture: [tune](../how-to/tune.md).""",
        _table(heads, _option_rows(OPTIONS))
        + f"""

Names for `model_name`: the built-in network {own}; Cellpose's {others}.
See [models](../how-to/models.md).

Changing an option that changes predictions makes a new model version:
[what happens then](../how-to/connect.md#what-happens-when-the-model-version-changes).

## Options for classes

These go onto a `Choices` tag, onto its `Image` tag or onto the root tag; where the labels of cells
are learned, onto the control. What they do: [classification](../how-to/classification.md).

{_table(heads, _option_rows(CHOICES_OPTIONS))}

This one goes onto a `Number` or `TextArea` tag:

{_table(heads, _option_rows(CLUSTER_OPTIONS))}

## Options for training

These go onto the root tag, and change no prediction. `model_roi` and `model_group` above are read
for training too. Capitals name the [settings](settings.md) that hold for all projects.

{_table(heads, _option_rows(LEARNING_OPTIONS))}""",
    )


def _option_rows(options: Mapping[str, Option]) -> list[tuple[str, ...]]:
    return [
        (f"`{name}`", option.allowed, option.default, option.meaning)
        for name, option in options.items()
    ]


def errors_page() -> str:
    """Return the page of all error codes."""
    rows = []
    for kind, depth in _tree(BackendError):
        name = "&nbsp;&nbsp;" * depth + kind.__name__
        meaning = (kind.__doc__ or "").strip()
        rows.append((f"`{kind.code}`", name, str(STATUS_BY_CODE[kind.code]), meaning))
    return _page(
        "Errors",
        """\
Whatever goes wrong on purpose has a code that never changes and a sentence that says what is wrong
and what to do. You meet them

- in the log: `"event": "task failed", "code": "image.fetch", "reason": "..."`;
- in answers of the backend: `{"code": ..., "message": ..., "request_id": ...}` with the HTTP status
  below; the request's id is also in the header `X-Request-ID`;
- in Label Studio, for a label config or model that cannot be served: the sentence stands in the
  address of the error that its Settings > Model page shows;
- from commands, after `error:`. The exit code is 78 where the settings or the model are wrong, so
  that starting again would not help, otherwise 1.

The sentence below is used where there is nothing more precise to say. A class that is set in
belongs to the one above it.""",
        _table(("code", "class", "status", "meaning"), rows)
        + """

Two codes are not in the tree: `http.404` and its like for addresses that do not exist, and
`job.unknown` from `/job_status`.""",
    )


def cli_page() -> str:
    """Return the page of all commands."""
    general: Any = app.registered_callback
    rows = [row for row in map(_param_row, *_parameters(general.callback)) if row]
    heads = ("argument", "value", "without it", "meaning")
    parts = [f"## Before the command\n\n{_table(heads, rows)}"]
    for name, function in _commands(app):
        parts.append(f"## ml-backend {name}\n\n{_paragraph(function.__doc__)}")
        rows = [row for row in map(_param_row, *_parameters(function)) if row]
        if rows:
            parts.append(_table(heads, rows))
    return _page(
        "Commands",
        """\
`ml-backend --help` and `ml-backend COMMAND --help` show the same. All commands read the
[settings](settings.md) from the environment and log to standard error. `python -m ml_backend` is
the same program.""",
        "\n\n".join(parts),
    )


def training_parameters_page() -> str:
    """Return the page of what a start may say of a training, ours beside the reference's."""
    heads = ("parameter", "value", "meaning", "built-in network", "Cellpose's networks")
    own, theirs = [], []
    for parameter in PARAMETERS:
        defaults = {name: _shown_default(one) for name, one in parameter.defaults().items()}
        built_in = defaults.pop(RESIDUAL_UNET)
        others = " / ".join(dict.fromkeys(defaults.values()))
        both = (built_in, others if others != built_in else "the same")
        own.append((f"`{parameter.name}`", parameter.allowed, parameter.meaning, *both))
        if parameter.reference is not None:
            said = _shown_default(parameter.reference.default)
            ours = " / ".join(dict.fromkeys((built_in, *defaults.values())))
            theirs.append((f"`{parameter.name}`", said, ours, parameter.reference.why))
    return _page(
        "Training parameters",
        """\
What a start may say of how a network is trained: in the body of `POST /api/v1/sessions`
([API](api.md#sessions)), as options of [`ml-backend sessions start`](cli.md), and of
`ml-backend train`. What is left away, or null, is the label config's for a
[project](tag-options.md#options-for-training), and else the default of the network's architecture,
here in the last columns. `GET /api/v1/training-parameters` answers the same as JSON.

A value that is not allowed is refused with a sentence for each, before anything starts.""",
        _table(heads, own)
        + f"""

Where two values stand for Cellpose's networks, the first is for `cpsam` and `cpsam_v2`, the second
for `cpdino` and `cpdino-vitb`. With `lora_rank` above 0 the learning rate is
{ADAPTER_LEARNING_RATE:g} unless another is given: adapters start at zero and are few.

`ml-backend train` asks for 5 objects on an image (`--min-masks`), as Cellpose's own command does.

## Beside the reference service

People who come from the Cellpose fine-tuning service of BioEngine find its parameters under their
names. Give its values for the same training; where ours are others, the last column says why.

{_table(("parameter", "theirs", "ours", "why"), theirs)}""",
    )


def _shown_default(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, int | float) else str(value)


PAGES: Mapping[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "tag-options.md": tag_options_page,
    "cli.md": cli_page,
    "errors.md": errors_page,
    "training-parameters.md": training_parameters_page,
}
"""File name -> what it must hold."""


def _page(title: str, introduction: str, body: str) -> str:
    return f"{WRITTEN_BY}\n\n# {title}\n\n{introduction}\n\n{body}\n"


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        cells = [cell.replace("|", "\\|").replace("\n", " ") for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _paragraph(text: str | None) -> str:
    return " ".join((text or "").split())


def _parameters(function: Callable[..., Any]) -> tuple[list[inspect.Parameter], list[Any]]:
    """Return a command's parameters and their types, with typer's information."""
    hints = get_type_hints(function, include_extras=True)
    found = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if hints[parameter.name] is not typer.Context
    ]
    return found, [hints[parameter.name] for parameter in found]


def _commands(group: typer.Typer) -> Iterator[tuple[str, Any]]:
    """Yield every command as it is typed, with its function."""
    for command in group.registered_commands:
        if command.hidden:  # for our own processes
            continue
        function: Any = command.callback
        yield command.name or function.__name__.replace("_", "-"), function
    for registered in group.registered_groups:
        inner: Any = registered.typer_instance
        yield str(registered.name), inner.registered_callback.callback
        for name, function in _commands(inner):
            yield f"{registered.name} {name}", function


def _param_row(parameter: inspect.Parameter, hint: Any) -> tuple[str, ...]:
    """Return the table row of a parameter, empty for one that people do not use."""
    kind, info = get_args(hint)[:2]
    if info.hidden:
        return ()
    required = parameter.default is inspect.Parameter.empty
    plain = [option for option in get_args(kind) if option is not type(None)] or [kind]
    if isinstance(info, typer.models.ArgumentInfo):
        name = f"`{parameter.name.upper()}`" + (" ..." if get_origin(kind) is list else "")
    else:
        # typer takes the first name that is given for a default
        given = info.default if isinstance(info.default, str) else None
        name = f"`{given or _flag(parameter.name)}`"
        if plain[0] is bool:
            name += f", `{_flag('no_' + parameter.name)}`"
    default = "" if required or parameter.default is None else _shown(parameter.default)
    return name, _kind(plain[0], info.min), default, _paragraph(info.help)


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    return f"{default:g}" if isinstance(default, int | float) else str(default)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _kind(kind: Any, low: float | None) -> str:
    if get_origin(kind) is list:  # an option that may be given several times
        return f"{_kind(get_args(kind)[0], low)}, several times"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " or ".join(str(member.value) for member in kind)
    names = {bool: "", int: "whole number", float: "number", str: "text", Path: "path"}
    return names[kind] + ("" if low is None else f", at least {low:g}")


def _tree(kind: type[BackendError], depth: int = 0) -> Iterator[tuple[type[BackendError], int]]:
    yield kind, depth
    for child in kind.__subclasses__():
        if child.__module__ == BackendError.__module__:
            yield from _tree(child, depth + 1)


def main() -> int:
    """Write or check the pages; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing, exit with 1 if old")
    only_check = parser.parse_args().check
    old = []
    for name, make in PAGES.items():
        path, text = FOLDER / name, make()
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            old.append(name)
            if not only_check:
                path.write_text(text, encoding="utf-8")
    for name in old:
        print(f"{name} {'is out of date' if only_check else 'written'}")
    return 1 if old and only_check else 0


if __name__ == "__main__":
    sys.exit(main())
