"""`sessions start` and `sessions restart`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ml_backend.cli.backend import open_backend
from ml_backend.cli.console import console, fail
from ml_backend.cli.session_texts import progress_text
from ml_backend.client import DatasetLayout, SessionInfo, TrainingOptions

_TRAINING, _DATASET = "How it is trained", "A dataset instead of a project"

_Text = str | None
_Whole = int | None
_Number = float | None
_Switch = bool | None


def _dataset(help_text: str) -> Any:
    return typer.Option(help=help_text, rich_help_panel=_DATASET, show_default=False)


def _training(help_text: str) -> Any:
    return typer.Option(help=help_text, rich_help_panel=_TRAINING, show_default=False)


def start(
    project: Annotated[_Text, typer.Argument(help="Number of the project.")] = None,
    dataset: Annotated[
        _Text, _dataset("Folder under DATA_ROOTS, address of an archive, or a known name.")
    ] = None,
    train_images: Annotated[_Text, _dataset("Folder or pattern with one *, in it.")] = None,
    train_annotations: Annotated[_Text, _dataset("The same, of the masks.")] = None,
    test_images: Annotated[_Text, _dataset("Images that nothing is learned from.")] = None,
    test_annotations: Annotated[_Text, _dataset("The same, of their masks.")] = None,
    metadata_dir: Annotated[
        _Text, _dataset("Folder with JSON files that name image_path and mask_path.")
    ] = None,
    model: Annotated[
        _Text, _dataset("To start from: a model's name, a session's id, or a checkpoint.")
    ] = None,
    label: Annotated[_Text, typer.Option(help="A word of your own, to find it by.")] = None,
    epochs: Annotated[_Whole, _training("How often it goes through its samples.")] = None,
    learning_rate: Annotated[_Number, _training("Largest step size.")] = None,
    weight_decay: Annotated[_Number, _training("How strongly weights are pulled to zero.")] = None,
    samples: Annotated[_Whole, _training("Crops of images in an epoch.")] = None,
    min_masks: Annotated[_Whole, _training("Fewest objects of an image.")] = None,
    validation_interval: Annotated[_Whole, _training("Epochs between two comparisons.")] = None,
    clahe: Annotated[_Switch, _training("Even out the contrast first.")] = None,
    rescale: Annotated[_Switch, _training("Resize objects to what the network knows.")] = None,
    batch_size: Annotated[_Whole, _training("Crops in a step.")] = None,
    crop: Annotated[_Whole, _training("Edge of a crop, in pixels of the network.")] = None,
    minutes: Annotated[_Number, _training("Learning takes at most so long.")] = None,
    patience: Annotated[_Whole, _training("Comparisons without a rise before it ends.")] = None,
    lora_rank: Annotated[_Whole, _training("Rank of adapters; 0 = train all weights.")] = None,
    seed: Annotated[_Whole, _training("What chance begins with.")] = None,
    from_active: Annotated[
        _Switch, _training("Start a project's training from what is served.")
    ] = None,
) -> None:
    """Train a project now, whatever its policy says, or a dataset.

    What is not given is the label config's for a project, and else the network's own default:
    docs/reference/training-parameters.md has all of them.
    """
    layout: DatasetLayout = {
        "train_images": train_images,
        "train_annotations": train_annotations,
        "test_images": test_images,
        "test_annotations": test_annotations,
        "metadata_dir": metadata_dir,
    }
    options: TrainingOptions = {
        "n_epochs": epochs,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "n_samples": samples,
        "min_train_masks": min_masks,
        "validation_interval": validation_interval,
        "enable_clahe": clahe,
        "rescale": rescale,
        "batch_size": batch_size,
        "crop": crop,
        "max_minutes": minutes,
        "patience": patience,
        "lora_rank": lora_rank,
        "seed": seed,
        "from_active": from_active,
        "label": label,
    }
    if (project is None) == (dataset is None):
        fail("Name a project, or a dataset with --dataset, and not both.")
    needless = [name for name, value in (*layout.items(), ("model", model)) if value]
    if project is not None and needless:
        fail(f"--{needless[0].replace('_', '-')} is for datasets; name one as --dataset.")
    with open_backend("sessions") as client:
        begun = client.sessions.start(
            project=project,
            dataset=dataset,
            layout=None if dataset is None else layout,
            model=model,
            **options,
        )
    for session in begun:
        _say_begun(session)


def restart(
    session_id: Annotated[str, typer.Argument(help="Of the session, or the beginning of it.")],
    epochs: Annotated[
        _Whole, typer.Option(help="How many; without it, as many as the old one had.")
    ] = None,
) -> None:
    """Begin a new training that goes on from what one that has ended has learned."""
    with open_backend("sessions") as client:
        begun = client.sessions.restart(session_id, n_epochs=epochs)
    _say_begun(begun)


def _say_begun(session: SessionInfo) -> None:
    console.print(
        f"session {session.id} ({', '.join(session.controls)}): {progress_text(session)}; "
        f"`ml-backend sessions watch {session.id}` follows it",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
