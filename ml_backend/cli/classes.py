"""`embed` and `cluster`: what is found in a project's images before anybody has labelled them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ml_backend.callers import PERSON
from ml_backend.cli.console import (
    add_row,
    begin,
    complaints,
    console,
    fail,
    sentences,
    show_table,
)
from ml_backend.learning import ENDED, Session, SessionState
from ml_backend.settings import Settings

if TYPE_CHECKING:
    from ml_backend.bootstrap.sessions import Desks

_LOOK_EVERY_S = 0.5
_SHOWN_LEFT_OUT = 10

ProjectNumber = Annotated[str, typer.Option("--project", help="Number of the project.")]


def embed(project: ProjectNumber) -> None:
    """Embed all images of a project, so that clusters, training and predictions find them ready.

    Broken off, it goes on where it was. Nothing in Label Studio changes.
    """
    with sentences():
        settings = begin("embed")

        from ml_backend.bootstrap.embeddings import embed_project

        with _bar() as bar:
            task = bar.add_task("embedding", total=None)
            made = embed_project(
                settings,
                project,
                on_task=lambda done, total: bar.update(task, completed=done, total=total),
            )
    for target, images in made:
        _say(
            f"{len(images.items)} images are embedded for {', '.join(target.names)}, "
            f"{images.embeddings.shape[1]} numbers each"
        )
        for sentence in images.left_out[:_SHOWN_LEFT_OUT]:
            complaints.print(sentence, markup=False, highlight=False, soft_wrap=True)


def cluster(
    project: ProjectNumber,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the pictures of the clusters.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Whether to wait until it is done.")] = True,
) -> None:
    """Put a project's images into clusters, and learn what has been labelled.

    A training session does it; the trainer must run (`ml-backend serve`).
    """
    with sentences():
        settings = begin("cluster")
        desks = _desks(settings)
        begun = [
            session
            for session in desks.starter.start_project(project, by=PERSON)
            if _learns_classes(desks, session)
        ]
        if not begun:
            fail("The project has no Choices tag of an image; there is nothing to cluster for.")
        for session in begun:
            if not wait:
                _say(
                    f"session {session.id} ({', '.join(session.controls)}) is asked for; "
                    f"`ml-backend sessions show {session.id}` follows it"
                )
                continue
            ended = _follow(desks, session)
            _show(desks, ended, output)


def _follow(desks: Desks, session: Session) -> Session:
    """Return the session once it has ended, with a bar until then."""
    with _bar() as bar:
        task = bar.add_task("waits for a trainer", total=None)
        while session.state not in ENDED:
            progress = session.progress
            bar.update(
                task,
                description=str(progress.get("phase") or "waits for a trainer"),
                completed=progress.get("step") or 0,
                total=progress.get("steps"),
            )
            time.sleep(_LOOK_EVERY_S)
            session = desks.training.get(session.id)
    return session


def _show(desks: Desks, session: Session, output: Path | None) -> None:
    if session.state is not SessionState.COMPLETED:
        fail(session.message or f"session {session.id} is {session.state}")
    _say(session.message or "")
    table = Table("control", "clusters", "named", "head", "labelled images", "calibration error")
    for control, learned in dict(session.report.get("learned") or {}).items():
        named = [name for name in learned["named_clusters"].values() if name["choices"]]
        error = learned.get("calibration_error")
        add_row(
            table,
            control,
            str(learned["clusters"]),
            str(len(named)),
            learned["head"] or "none yet",
            str(learned.get("images", 0)),
            "" if error is None else f"{error:.3f}",
        )
    show_table(table)
    if output is not None and session.version is not None:
        write_pictures(desks, session.version, session.project.project_id, output)


def write_pictures(desks: Desks, version: str, project: int | str | None, folder: Path) -> None:
    """Write the pictures of a version into a folder.

    Raises:
        NotFound: there is no such version, or it has no pictures.
        BadRequest: several projects have one of that name.
    """
    name = None if project is None else str(project)
    found = desks.model_desk.version(version, project=name)
    pictures = desks.version_desk.pictures(found.project, found.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in pictures:
            (folder / path.name).write_bytes(path.read_bytes())
    except OSError as error:
        fail(f"{folder} cannot be written ({error.strerror}); give --output another folder.")
    _say(f"{len(pictures)} pictures are in {folder}")


def _learns_classes(desks: Desks, session: Session) -> bool:
    from ml_backend.labelstudio.controls import parse_label_config

    project = desks.projects.get(session.project)
    choices = parse_label_config(project.label_config).choices if project else ()
    return set(session.controls) <= {control.name for control in choices}


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=complaints,
    )


def _desks(settings: Settings) -> Desks:
    from ml_backend.bootstrap.sessions import open_desks

    return open_desks(settings)


def _say(sentence: str) -> None:
    console.print(sentence, markup=False, highlight=False, soft_wrap=True)
