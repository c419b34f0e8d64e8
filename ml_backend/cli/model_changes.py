"""`models activate|rollback|archive|delete|clean-up`: what is served, and what is kept."""

from __future__ import annotations

from typing import Annotated

import typer

from ml_backend.callers import PERSON
from ml_backend.cli.backend import only_here, open_backend
from ml_backend.cli.console import begin, fail, sentences
from ml_backend.cli.models import (
    ModelName,
    OfProject,
    find_key,
    models,
    open_desks,
    say,
    say_what_happens,
)

ProjectName = Annotated[str, typer.Argument(help="Number of the project.")]
_BY = PERSON.who  # in the record of what was served


@models.command()
def activate(
    model: ModelName,
    project: Annotated[
        str | None,
        typer.Option(help="Number of the project that shall serve it; default: its own."),
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of a control that it shall feed; may be given several times; default: those "
            "it was trained for, in another project all that are fed with masks."
        ),
    ] = None,
    of: OfProject = None,
) -> None:
    """Serve a model from now on, whatever the gate said of it."""
    with open_backend("models") as client:
        activation = client.models.activate(
            model, project=project, controls=control or None, owner=of
        )
    say_what_happens(activation)


@models.command()
def rollback(
    project: ProjectName,
    to_base: Annotated[
        bool, typer.Option("--to-base", help="To the base network, whatever was served between.")
    ] = False,
) -> None:
    """Serve what was served before the last change; again: what was before that."""
    with open_backend("models") as client:
        activation = client.models.rollback(project, to_base=to_base)
    say_what_happens(activation)


@models.command()
def archive(model: ModelName, of: OfProject = None) -> None:
    """Put a model away: it is listed, and can be served no more. Its files stay."""
    with open_backend("models") as client:
        away = client.models.archive(model, owner=of)
    say(f"{away.name} is put away")


@models.command()
def delete(
    model: ModelName,
    of: OfProject = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
) -> None:
    """Delete a model and its weights, unless something needs it."""
    with open_backend("models") as client:
        found = client.models.get(model, owner=of)
        if not yes and not typer.confirm(f"Delete {found.name} and its weights for good?"):
            fail(f"{found.name} stays; nothing was deleted.")
        client.models.delete(model, owner=of)
    say(f"{found.name} is deleted")


@models.command("clean-up")
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

    only_here("models clean-up")
    with sentences():
        settings = begin("models")
        key = find_key(open_desks("models", settings), project)
        cleaned = clean_up_predictions(
            settings, key, older_than_days=older_than, dry_run=not remove
        )
    say(cleaned.sentence(dry_run=not remove))
