"""`train`: a network learns from images and masks in a folder, without Label Studio.

And the hidden command that a trainer runs one session with.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ml_backend.cli.console import begin, complaints, console, fail, sentences, show_table
from ml_backend.cli.training_texts import (
    EpochLines,
    curve_lines,
    doing_text,
    epochs_table,
    facts_text,
    table_of_test,
)
from ml_backend.learning import Lease, SessionState
from ml_backend.processes.logs import configure_logs
from ml_backend.processes.training_child import EXIT_GIVEN_BACK
from ml_backend.settings import Settings, read_settings
from ml_backend.training.interruption import Interrupted, Interruption

if TYPE_CHECKING:
    from ml_backend.bootstrap.dataset_training import Beginning, LocalTraining, Result

EXIT_STOPPED = 130  # as shells say of Ctrl-C
_SHOWN = 5  # sentences of what was left out


def train(
    directory: Annotated[
        str | None,
        typer.Argument(
            metavar="DIR",
            help="Folder with images and masks, a zip or tar archive, or the address of one.",
        ),
    ] = None,
    test: Annotated[
        str | None, typer.Option(help="Folder with images and masks that are only tested on.")
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="Images in DIR: a folder, or a pattern like 'images/*.tif'.")
    ] = None,
    masks: Annotated[
        str | None,
        typer.Option(help="Their masks: a folder, or a pattern; its * stands for the same text."),
    ] = None,
    metadata: Annotated[
        str | None,
        typer.Option(help="Folder in DIR with JSON files that name image_path and mask_path."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A model's name, a session's id or a checkpoint; default: MODEL."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="How often; default: the network's own.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Largest step size; default: the network's own.")
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(min=0, help="Pull to zero; default: the network's own.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Image crops a step; default: the network's own.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Image crops an epoch; default: by the images.")
    ] = None,
    crop: Annotated[
        int | None, typer.Option(help="Edge of a crop, pixels; default: the network's own.")
    ] = None,
    lora_rank: Annotated[
        int, typer.Option(min=0, help="Train adapters of that rank only; 0 = all weights.")
    ] = 0,
    validation_interval: Annotated[
        int | None,
        typer.Option(min=1, help="Epochs between two scores; default: the network's own."),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(min=1, help="Scores without a rise until it ends; default: its own."),
    ] = None,
    min_masks: Annotated[
        int | None,
        typer.Option(min=0, help="Images with fewer objects are left out, empty ones never."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Longest training; default: what TRAINING_MINUTES says.")
    ] = None,
    clahe: Annotated[
        bool, typer.Option("--clahe", help="Equalise the contrast first, as `predict --clahe`.")
    ] = False,
    no_rescale: Annotated[
        bool, typer.Option("--no-rescale", help="Leave images at their own size.")
    ] = False,
    label: Annotated[
        str | None, typer.Option(help="A word to find the session by, such as cells.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides all that is random.")] = 0,
    output: Annotated[
        Path | None, typer.Option(help="Folder that the model is copied to as well.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option(help="Id of a stopped or failed session to go on with.")
    ] = None,
) -> None:
    """Fine-tune a network on images and masks in a folder; Ctrl-C keeps what was learned.

    Masks are label images: the same names in two folders, patterns, or as Cellpose names them
    (x_masks.tif or x_seg.npy beside x.tif). One image in five is held out to compare by.
    """
    if (directory is None) == (resume is None):
        fail("Name a folder with images and masks, or --resume with the id of a session.", 2)
    if output is not None and output.expanduser().is_file():
        fail(f"--output {str(output)!r} is a file; name a folder.", 2)
    with sentences():
        settings = _quiet_settings()

        from ml_backend.bootstrap.dataset_training import LocalTraining, dataset_source

        training = LocalTraining(settings)
        if resume is not None:
            beginning = training.take_up(resume)
        else:
            source = dataset_source(
                directory or "", test=test, images=images, masks=masks, metadata=metadata
            )
            beginning = training.begin(
                source,
                parameters={
                    "n_epochs": epochs,
                    "learning_rate": learning_rate,
                    "weight_decay": weight_decay,
                    "batch_size": batch_size,
                    "n_samples": samples,
                    "crop": crop,
                    "lora_rank": lora_rank,
                    "validation_interval": validation_interval,
                    "patience": patience,
                    "min_train_masks": min_masks,
                    "max_minutes": minutes,
                    "enable_clahe": True if clahe else None,
                    "rescale": not no_rescale,
                    "seed": seed,
                },
                model=model,
                label=label,
            )
        _say_what_begins(beginning)
        result = _run(training, beginning)
        _say_what_came(result, output)


def _quiet_settings() -> Settings:
    """Return the settings, with logs on that leave the progress bar alone."""
    settings = read_settings()
    level = "WARNING" if settings.log_level == "INFO" else settings.log_level
    configure_logs(level, process="train")
    return settings


def _say_what_begins(beginning: Beginning) -> None:
    session = beginning.session
    count = "" if beginning.images is None else f"{beginning.images} images of "
    base = "" if beginning.base is None else f", from {beginning.base}"
    _complain(f"session {session.id}: trains on {count}{session.dataset}{base}")


def _run(training: LocalTraining, beginning: Beginning) -> Result:
    """Train under a progress bar until the end, or until somebody stops it."""
    interruption = Interruption()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
        TimeElapsedColumn(),
        console=complaints,
        disable=not complaints.is_terminal,
    ) as bar:
        listener = _listener(bar)

        def told() -> None:
            complaints.print("stopping after the batch in hand", style="yellow")

        with interruption.listening_to_person(told):
            return training.run(beginning, interruption, listener)


def _listener(bar: Progress) -> Callable[[Mapping[str, Any]], None]:
    """Return what shows progress: a bar in a terminal, elsewhere a line for each epoch."""
    if not complaints.is_terminal:
        return EpochLines(_complain)
    task = bar.add_task("starting", total=None, facts="")

    def listen(progress: Mapping[str, Any]) -> None:
        bar.update(
            task,
            description=doing_text(progress),
            completed=progress.get("epoch") or 0,
            total=progress.get("epochs"),
            facts=facts_text(progress) if progress.get("phase") == "training" else "",
        )

    return listen


def _say_what_came(result: Result, output: Path | None) -> None:
    session = result.session
    left_out = list(session.report.get("left_out", ()))
    for sentence in left_out[:_SHOWN]:
        _complain(sentence)
    if len(left_out) > _SHOWN:
        _say(f"`ml-backend sessions show {session.id}` names {len(left_out) - _SHOWN} more.")
    if result.points:
        show_table(epochs_table(result.points))
        for line in curve_lines(result.points):
            _say(line)
    if session.state is SessionState.STOPPED:
        _say(
            "It was stopped, and what was learned so far is kept. To go on: "
            f"`ml-backend train --resume {session.id}`, or `ml-backend sessions resume "
            f"{session.id}` while a trainer runs."
        )
        raise typer.Exit(EXIT_STOPPED)
    if result.folder is None:
        fail(session.message or f"Session {session.id} is {session.state}.")
    if "test" in session.report:
        show_table(table_of_test(session.report["test"]))
    _say(f"{session.version}: {session.message}")
    if result.curves is not None:
        _say(f"curves: {result.curves}")
    _say(f"model: {result.folder}")
    _copy(result.folder, output)
    name = shlex.quote(str(session.version))
    clahe = " --clahe" if session.parameters.clahe else ""
    _say(f"To use it: ml-backend predict IMAGES --model {name}{clahe}")
    _say(f"For all projects: MODEL={name} ml-backend serve")


def _copy(folder: Path, output: Path | None) -> None:
    if output is None:
        return

    from ml_backend.bootstrap.dataset_training import copy_model

    _say(f"copy: {copy_model(folder, output)}")


def _say(sentence: str) -> None:
    console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _complain(sentence: str) -> None:
    complaints.print(sentence, markup=False, highlight=False, soft_wrap=True)


def train_session(
    session_id: str,
    lease: Annotated[int, typer.Option()],
    owner: Annotated[str, typer.Option()],
    lifeline_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run one training session under a lease; the trainer does this by itself."""
    interruption = Interruption()
    try:
        interruption.listen()  # before anything slow: being told to go is no crash
        with sentences():
            settings = begin("training", lifeline_fd)

            from ml_backend.bootstrap.training import run_session

            code = run_session(
                settings,
                Lease(session_id=session_id, number=lease, owner=owner),
                interruption,
            )
    except Interrupted:
        code = EXIT_GIVEN_BACK
    raise typer.Exit(code)
