"""What a person may say of how a network is trained, and how values from outside are read.

The names are those of the reference service where it has one; each entry says its default and why
ours is another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ml_backend.errors import BadRequest
from ml_backend.learning import TrainingParameters
from ml_backend.recipes import SMALLEST_CROP
from ml_backend.service.training_parameter import Reference, TrainingParameter

PARAMETERS: Final = (
    TrainingParameter(
        name="n_epochs",
        kind=int,
        low=1,
        high=100_000,
        field="n_epochs",
        meaning="How often the training goes through its samples.",
        own=lambda defaults: defaults.n_epochs,
        reference=Reference(
            default=10,
            why="Cellpose recommends 100 epochs for its networks. With 10, its learning rate is "
            "still being warmed up when the training ends. 60 were measured for the built-in one.",
        ),
    ),
    TrainingParameter(
        name="learning_rate",
        kind=float,
        low=0,
        high=10,
        is_above=True,
        field="learning_rate",
        meaning="The largest step size, reached after the warm-up.",
        own=lambda defaults: defaults.learning_rate,
        reference=Reference(
            default=1e-6,
            why="Cellpose recommends 1e-05. Together with 10 epochs, 1e-06 moves the weights about "
            "a hundredth as far. The built-in network is small and trained from what it knows, so "
            "it takes larger steps.",
        ),
    ),
    TrainingParameter(
        name="weight_decay",
        kind=float,
        low=0,
        high=10,
        field="weight_decay",
        meaning="How strongly weights are pulled to zero.",
        own=lambda defaults: defaults.weight_decay,
        reference=Reference(
            default=1e-4,
            why="Cellpose recommends 0.1 for its networks: few images are learned by heart easily.",
        ),
    ),
    TrainingParameter(
        name="n_samples",
        kind=int,
        low=1,
        high=1_000_000,
        field="n_samples",
        meaning="Crops of images in an epoch.",
        own=lambda defaults: (
            f"{defaults.samples_per_image} for each image, at least {defaults.least_samples} and "
            f"at most {defaults.most_samples}"
        ),
        reference=Reference(
            default="one for each image",
            why="With few images an epoch would be over after a few steps, and with very many it "
            "would never end; so there is a least and a most.",
        ),
    ),
    TrainingParameter(
        name="min_train_masks",
        kind=int,
        low=0,
        high=1_000_000,
        field="min_train_masks",
        meaning="Images with fewer objects are not trained on, unless they have none at all.",
        common=1,
        reference=Reference(
            default=5,
            why="An image on which somebody outlined four cells is as true as one with five, and "
            "an empty one says that there is nothing.",
        ),
    ),
    TrainingParameter(
        name="validation_interval",
        kind=int,
        low=1,
        high=100_000,
        field="validation_interval",
        meaning=(
            "Epochs between two comparisons with the images that are kept back; their loss is "
            "measured every epoch, and the last epoch is always compared."
        ),
        own=lambda defaults: defaults.validation_interval,
        reference=Reference(
            default="every 10 epochs, and the first",
            why="The same, but the first epoch is no news: the base network's own score is "
            "measured before it.",
        ),
    ),
    TrainingParameter(
        name="enable_clahe",
        kind=bool,
        field="clahe",
        meaning="Evens out the contrast over the image before the network sees it.",
        common="as the project's controls say; false for a dataset",
        reference=Reference(
            default=False,
            why="A network must be trained on what it sees when it predicts, and a label config "
            "may say so with model_clahe.",
        ),
    ),
    TrainingParameter(
        name="rescale",
        kind=bool,
        field="rescale",
        meaning="Resizes images so that objects have the size that the network knows.",
        common=True,
        reference=Reference(
            default=False,
            why="Predictions resize images in the same way, by the size of objects that is "
            "measured here and kept with the new model.",
        ),
    ),
    TrainingParameter(
        name="batch_size",
        kind=int,
        low=1,
        high=1024,
        field="batch_size",
        meaning="Crops in a step; taken one after the other where memory does not suffice.",
        own=lambda defaults: defaults.batch_size,
    ),
    TrainingParameter(
        name="crop",
        kind=int,
        low=SMALLEST_CROP,
        high=1024,
        step=16,
        field="crop",
        meaning="Edge of a crop in pixels of the network; Cellpose's take no other than theirs.",
        own=lambda defaults: defaults.crop,
    ),
    TrainingParameter(
        name="max_minutes",
        kind=float,
        low=0,
        high=100_000,
        is_above=True,
        field="max_minutes",
        meaning="Learning takes at most so long; preparing and comparing images come on top.",
        common="what TRAINING_MINUTES says, else no limit",
    ),
    TrainingParameter(
        name="patience",
        kind=int,
        low=1,
        high=100_000,
        field="patience",
        meaning="After so many comparisons without a rise the training ends early.",
        own=lambda defaults: defaults.patience,
    ),
    TrainingParameter(
        name="lora_rank",
        kind=int,
        low=0,
        high=1024,
        field="lora_rank",
        meaning="Rank of adapters that are trained instead of a transformer's weights; 0 = none.",
        common=0,
    ),
    TrainingParameter(
        name="seed",
        kind=int,
        low=0,
        high=2**32 - 1,
        field="seed",
        meaning="What chance begins with: which crops are drawn, and how they are turned.",
        common=0,
    ),
    TrainingParameter(
        name="from_active",
        kind=bool,
        of_projects_only=True,
        field="from_active",
        meaning="Starts from the network that is served, and not from the base network.",
        common="false, or what model_start_from says",
    ),
)
"""Everything that a start may say of the training itself."""

_BY_NAME: Final = {parameter.name: parameter for parameter in PARAMETERS}
FIELDS_OF_PROJECTS: Final = ("multiple", "leave_out_unfinished")
"""Fields of `TrainingParameters` that only a label config can set."""


def read_parameters(given: Mapping[str, Any], *, of_project: bool) -> dict[str, Any]:
    """Return the fields of `TrainingParameters` that a caller sets; None leaves the default.

    Args:
        given: Values from outside, by the name of the parameter.
        of_project: Whether a Label Studio project is to be trained, and not a dataset.

    Raises:
        BadRequest: a sentence for each that is unknown or not allowed.
    """
    fields, problems = {}, []
    for name, value in given.items():
        parameter = _BY_NAME.get(name)
        if parameter is None:
            problems.append(f"There is no training parameter {name[:100]!r}.")
        elif value is None:
            continue
        elif parameter.of_projects_only and not of_project:
            problems.append(
                f"{name} is for projects, which serve a model; name the model to start from as "
                "`model` instead."
            )
        else:
            try:
                fields[parameter.field] = parameter.read(value)
            except (ValueError, OverflowError):
                problems.append(f"{name} is {_shown(value)}; it must be {parameter.allowed}.")
    if problems:
        raise BadRequest(" ".join(problems))
    return fields


def named_parameters(parameters: TrainingParameters) -> dict[str, Any]:
    """Return all parameters as JSON-able values, under the names that callers know."""
    values = parameters.canonical()
    own = {parameter.name: values[parameter.field] for parameter in PARAMETERS}
    return {**own, **{name: values[name] for name in FIELDS_OF_PROJECTS}}


def _shown(value: Any) -> str:
    text = {True: "true", False: "false"}.get(value) if isinstance(value, bool) else None
    text = text or (repr(value) if isinstance(value, str) else str(value))
    return text if len(text) <= 60 else text[:59] + "…"
