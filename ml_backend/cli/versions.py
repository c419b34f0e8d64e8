"""`versions`: the networks that were trained, which of them is served, and changing that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ml_backend.cli.console import add_row, begin, complaints, console, sentences, show_table
from ml_backend.cli.session_texts import moment_text
from ml_backend.domain import ProjectKey
from ml_backend.learning import Activation, VersionState
from ml_backend.settings import Settings

if TYPE_CHECKING:
    from ml_backend.bootstrap.sessions import Desks

versions = typer.Typer(help="Show trained networks and change which are served.")

ProjectName = Annotated[str, typer.Argument(help="Number of the project.")]
_BY = "A person"  # in the record of what was served
_STYLES = {VersionState.REFUSED: "red", VersionState.ARCHIVED: "dim"}


@versions.callback(no_args_is_help=True)
def about() -> None:
    """Show trained networks and change which are served."""


@versions.command("list")
def list_versions(
    project: Annotated[str | None, typer.Option(help="Number of a project.")] = None,
    changes: Annotated[
        bool, typer.Option("--changes", help="What was served when, instead.")
    ] = False,
) -> None:
    """List trained networks, newest first, and what their project serves."""
    with sentences():
        desks = _desks()
        keys = (
            [one.key for one in desks.projects.all()]
            if project is None
            else [find_key(desks, project)]
        )
        listed = [desks.version_desk.list(key) for key in keys]
    if changes:
        _show_changes([activation for one in listed for activation in one.activations])
        return
    if not any(one.versions for one in listed):
        complaints.print("Nothing was trained yet.", style="dim")
        return
    table = Table(
        "version", "project", "state", "serves", "score before", "score", "trained", "remark"
    )
    for one in listed:
        for overview in one.versions:
            version = overview.version
            before, now = precisions(version.metrics)
            add_row(
                table,
                version.name,
                str(version.project.project_id),
                Text(version.state, style=_STYLES.get(version.state, "")),
                Text(", ".join(overview.serving), style="green"),
                before,
                now,
                moment_text(version.created_at),
                version.message or "",
            )
    show_table(table)


@versions.command()
def activate(
    version: Annotated[str, typer.Argument(help="Name of the version.")],
    project: Annotated[
        str | None, typer.Option(help="Number of its project, where several have one so named.")
    ] = None,
) -> None:
    """Serve a version from now on, whatever the gate said of it."""
    from ml_backend.service.project_names import find_version

    with sentences():
        desks = _desks()
        key = find_version(desks.projects, desks.versions, version, project=project)
        activation = desks.version_desk.activate(key, version, by=_BY)
    _say_what_happens(activation)


@versions.command()
def rollback(
    project: ProjectName,
    to_base: Annotated[
        bool, typer.Option("--to-base", help="To the base network, whatever was served between.")
    ] = False,
) -> None:
    """Serve what was served before the last change; again: what was before that."""
    with sentences():
        desks = _desks()
        key = find_key(desks, project)
        if to_base:
            activation = desks.version_desk.activate_base(key, by=_BY)
        else:
            activation = desks.version_desk.rollback(key, by=_BY)
    _say_what_happens(activation)


@versions.command()
def pictures(
    version: Annotated[str, typer.Argument(help="Name of the version.")],
    output: Annotated[Path, typer.Option(help="Folder for them.")],
    project: Annotated[
        str | None, typer.Option(help="Number of its project, where several have one so named.")
    ] = None,
) -> None:
    """Write the pictures of a version that learned classes: the embedding, and each cluster."""
    from ml_backend.cli.classes import write_pictures

    with sentences():
        write_pictures(_desks(), version, project, output)


@versions.command("clean-up")
def clean_up(
    project: ProjectName,
    older_than: Annotated[
        float, typer.Option(min=1, help="Days that nobody had to do with them.")
    ] = 30.0,
    remove: Annotated[bool, typer.Option("--remove", help="Do it, instead of counting only.")] = (
        False
    ),
) -> None:
    """Remove predictions of versions that are served no more from Label Studio, by age.

    Those that an open page may hold or that annotations came from stay.
    """
    from ml_backend.bootstrap.clean_up import clean_up_predictions

    with sentences():
        settings = begin("versions")
        key = find_key(_desks(settings), project)
        cleaned = clean_up_predictions(
            settings, key, older_than_days=older_than, dry_run=not remove
        )
    _say(cleaned.sentence(dry_run=not remove))


def find_key(desks: Desks, project: str) -> ProjectKey:
    """Return the key of the project that a person names."""
    from ml_backend.service.project_names import find_project

    return find_project(desks.projects, project).key


def precisions(metrics: Mapping[str, Any]) -> tuple[str, str]:
    """Return the scores of what was served before and of the version, "" where not known.

    Of masks the mean AP; of classes balanced accuracy or macro F1, the mean over the controls.
    """
    of_controls = metrics.get("controls")
    if isinstance(of_controls, Mapping):
        return _mean(of_controls, "active"), _mean(of_controls, "candidate")
    return _text(metrics.get("active")), _text(metrics.get("candidate"))


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


def _show_changes(activations: list[Activation]) -> None:
    table = Table("change", "project", "asked for", "state", "release", "why", "remark")
    for activation in activations:
        add_row(
            table,
            str(activation.id),
            str(activation.project.project_id),
            moment_text(activation.created_at),
            activation.state,
            activation.release or "",
            activation.reason,
            activation.message or "",
        )
    show_table(table)


def _say_what_happens(activation: Activation) -> None:
    _say(
        f"change {activation.id} is asked for: an engine loads and tries the networks, then they "
        "are served; `ml-backend versions list --changes` says when that is done"
    )


def _say(sentence: str) -> None:
    console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _desks(settings: Settings | None = None) -> Desks:
    from ml_backend.bootstrap.sessions import open_desks

    return open_desks(settings or begin("versions"))
