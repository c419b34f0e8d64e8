"""`models`: the networks that can be used by name, and what of them is served."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ml_backend.cli.backend import open_backend
from ml_backend.cli.console import add_row, begin, complaints, console, show_table
from ml_backend.cli.session_texts import moment_text
from ml_backend.client import ActivationInfo, ModelInfo, Served
from ml_backend.domain import ProjectKey
from ml_backend.service.models_listed import ModelKind

if TYPE_CHECKING:
    from ml_backend.bootstrap.sessions import Desks
    from ml_backend.settings import Settings

models = typer.Typer(help="List, serve, move and remove models.", no_args_is_help=True)

ModelName = Annotated[
    str, typer.Argument(help="Name of a model, or the id of the session that made it.")
]
OfProject = Annotated[
    str | None,
    typer.Option(
        "--of",
        help="Whose model, where several have one so named: a project's number, a dataset's name, "
        "or uploads.",
    ),
]
ProjectNumber = Annotated[str | None, typer.Option(help="Number of a project.")]

_STYLES: dict[str, str] = {
    ModelKind.REFUSED: "red",
    ModelKind.ARCHIVED: "dim",
    ModelKind.PUBLISHED: "green",
}


@models.callback()
def about() -> None:
    """List models, serve them, move them in and out, remove them."""


@models.command("list")
def list_models(
    kind: Annotated[ModelKind | None, typer.Option(help="Only models of this kind.")] = None,
    project: ProjectNumber = None,
    dataset: Annotated[
        str | None, typer.Option(help="Name of a dataset: only what was trained on it.")
    ] = None,
) -> None:
    """List models: those that are built in, then those trained and uploaded, newest first."""
    with open_backend("models") as client:
        found = list(client.models.find(kind=kind, project=project, dataset=dataset))
    if not found:
        complaints.print("There is no such model yet.", style="dim")
        return
    table = Table(
        "name", "kind", "licence", "trained on", "serves", "before", "score", "made", "remark"
    )
    for model in found:
        before, now = precisions(model.metrics)
        add_row(
            table,
            model.name,
            Text(model.kind, style=_STYLES.get(model.kind, "")),
            model.licence or "",
            _origin_text(model),
            Text(served_text(model.serves), style="green"),
            before,
            now,
            moment_text(model.created_at),
            _remark(model),
        )
    show_table(table)


@models.command()
def show(model: ModelName, of: OfProject = None) -> None:
    """Show a model: what it was made from, its licence, how good it is, what it serves."""
    with open_backend("models") as client:
        found = client.models.get(model, owner=of)
    table = Table(show_header=False, box=None)
    before, now = precisions(found.metrics)
    for name, text in (
        ("name", found.name),
        ("kind", found.kind),
        ("state", found.state),
        ("licence of the weights", found.licence),
        ("architecture", found.architecture),
        ("SHA-256 of the weights", found.sha256 or "not looked at yet"),
        ("diameter", "" if found.diameter is None else f"{found.diameter:.1f} px"),
        ("trained on", _origin_text(found)),
        ("session", found.session or ""),
        ("made from", " < ".join(found.lineage)),
        ("controls", ", ".join(found.controls)),
        ("serves", served_text(found.serves)),
        ("score before", before),
        ("score", now),
        ("made", moment_text(found.created_at)),
        ("weights", _weights_text(found)),
        ("remark", found.message or ""),
    ):
        if text:
            add_row(table, name, text)
    show_table(table)


@models.command()
def changes(project: ProjectNumber = None) -> None:
    """List what was served when, and how far the newest change is."""
    with open_backend("models") as client:
        found = list(client.models.activations(project=project))
    table = Table("change", "project", "asked for", "state", "release", "why", "remark")
    for activation in found:
        add_row(
            table,
            str(activation.id),
            str(activation.project.id),
            moment_text(activation.created_at),
            activation.state,
            activation.release or "",
            activation.reason,
            activation.message or "",
        )
    show_table(table)


def served_text(serves: Iterable[Served]) -> str:
    """Return which controls a model feeds, with the numbers of their projects."""
    return ", ".join(f"{one.control} ({_number_in(one.project)})" for one in serves)


def _number_in(key: str) -> str:
    """Return the number of a project in its key, which is like http://host#3.1795215681."""
    return key.rpartition("#")[2].partition(".")[0]


def precisions(metrics: Mapping[str, Any]) -> tuple[str, str]:
    """Return the scores of what was served before and of the version, "" where not known.

    Of masks the mean AP; of classes balanced accuracy or macro F1, the mean over the controls.
    """
    of_controls = metrics.get("controls")
    if isinstance(of_controls, Mapping):
        return _mean(of_controls, "active"), _mean(of_controls, "candidate")
    return _text(metrics.get("active")), _text(metrics.get("candidate"))


def find_key(desks: Desks, project: str) -> ProjectKey:
    """Return the key of the project that a person names."""
    from ml_backend.service.project_names import find_project

    return find_project(desks.projects, project).key


def say_what_happens(activation: ActivationInfo) -> None:
    """Say what comes of a change that was asked for."""
    say(
        f"change {activation.id} is asked for: an engine loads and tries the networks, then they "
        "are served; `ml-backend models changes` says when that is done"
    )


def say(sentence: str) -> None:
    """Print a sentence as it is."""
    console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def open_desks(process: str, settings: Settings | None = None) -> Desks:
    """Return the desks on the records, which are made where there are none."""
    from ml_backend.bootstrap.sessions import open_desks

    return open_desks(settings or begin(process))


def _origin_text(model: ModelInfo) -> str:
    if model.project is not None:
        return f"project {model.project.id}"
    return f"dataset {model.dataset}" if model.dataset else ""


def _weights_text(model: ModelInfo) -> str:
    if not model.available:
        return _remark(model)
    return f"there; `ml-backend models download {model.name}` writes them into a file"


def _remark(model: ModelInfo) -> str:
    if model.available:
        return model.message or ""
    if model.kind == ModelKind.BUILT_IN:
        return f"missing; `ml-backend models fetch {model.name}` fetches its weights"
    missing = "its weights are not on this machine"
    return f"{model.message} ({missing})" if model.message else missing


def _mean(of_controls: Mapping[str, Any], name: str) -> str:
    known = [
        numbers[name]
        for numbers in of_controls.values()
        if isinstance(numbers, Mapping) and isinstance(numbers.get(name), int | float)
    ]
    return _text(sum(known) / len(known)) if known else ""


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get("mean")
    return f"{value:.3f}" if isinstance(value, int | float) else ""
