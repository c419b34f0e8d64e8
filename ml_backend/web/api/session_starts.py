"""Bodies that start trainings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from ml_backend.errors import BadRequest
from ml_backend.service.dataset_sources import LONGEST_ARTIFACT, LONGEST_PATTERN, DatasetWish
from ml_backend.service.session_starts import LONGEST_LABEL, LONGEST_MODEL
from ml_backend.service.training_parameter import TrainingParameter
from ml_backend.service.training_parameters import PARAMETERS
from ml_backend.web.api.routing import json_body

MAX_BODY_BYTES: Final = 100_000

_PLACES: Final = (
    *("train_images", "train_annotations", "test_images", "test_annotations"),
    "metadata_dir",
)
_OF_DATASETS: Final = ("artifact", *_PLACES, "model")
_PARAMETERS: Final = tuple(parameter.name for parameter in PARAMETERS)
_FIELDS: Final = ("project", *_OF_DATASETS, "label", *_PARAMETERS)


@dataclass(frozen=True, kw_only=True)
class SessionStart:
    """What a body asks for: a project or a dataset, one of which is there."""

    project: str | None = None
    dataset: DatasetWish | None = None
    model: str | None = None
    label: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)  # as they came


def parse_start(body: bytes) -> SessionStart:
    """Return what a body asks to be trained.

    Raises:
        BadRequest: it names nothing or too much, or a field is no field or of the wrong type.
    """
    given = {name: value for name, value in _object(body).items() if value is not None}
    unknown = sorted(given.keys() - set(_FIELDS))
    if unknown:
        raise BadRequest(
            f"The body has the field {unknown[0][:100]!r}, which is not known; known are "
            f"{', '.join(_FIELDS)}."
        )
    project, label = given.get("project"), _text(given, "label")
    parameters = {name: given[name] for name in _PARAMETERS if name in given}
    if project is not None:
        return _of_project(project, given, label, parameters)
    artifact = _text(given, "artifact")
    if artifact is None:
        raise _names_nothing()
    places = {name: _text(given, name) for name in _PLACES}
    return SessionStart(
        dataset=DatasetWish(artifact=artifact, **places),
        model=_text(given, "model"),
        label=label,
        parameters=parameters,
    )


def parse_restart(body: bytes) -> int | None:
    """Return the number of epochs that a body asks for, None where it leaves it.

    Raises:
        BadRequest: it is no JSON object, or has another field.
    """
    given = _object(body) if body.strip() else {}
    unknown = sorted(given.keys() - {"n_epochs"})
    if unknown:
        raise BadRequest(
            f"The body has the field {unknown[0][:100]!r}; a restart takes n_epochs and nothing "
            "else."
        )
    epochs: int | None = given.get("n_epochs")
    return epochs


def _of_project(
    project: Any, given: dict[str, Any], label: str | None, parameters: dict[str, Any]
) -> SessionStart:
    too_much = next((name for name in _OF_DATASETS if name in given), None)
    if too_much == "model":
        raise BadRequest(
            "A project's label config names the network that it is trained from (model_name); "
            "leave `model` away, or name a dataset instead of a project."
        )
    if too_much is not None:
        raise BadRequest(
            f"The body names a project and {too_much}; a session learns from one of them."
        )
    if isinstance(project, bool) or not isinstance(project, str | int):
        raise _names_nothing()
    return SessionStart(project=str(project), label=label, parameters=parameters)


def _object(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise _names_nothing() from None


def _text(given: dict[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"{name} must be a text.")
    return value


def _names_nothing() -> BadRequest:
    return BadRequest(
        'The body must be a JSON object that names a project, like {"project": 3}, or a dataset, '
        'like {"artifact": "/data/nuclei"}.'
    )


# How OpenAPI describes them


def _described(parameter: TrainingParameter) -> dict[str, Any]:
    names = {int: "integer", float: "number", bool: "boolean"}
    schema: dict[str, Any] = {
        "type": [names[parameter.kind], "null"],
        "description": f"{parameter.meaning} It is {parameter.allowed}; null = the default.",
    }
    if parameter.kind is not bool:
        schema["exclusiveMinimum" if parameter.is_above else "minimum"] = parameter.low
        schema["maximum"] = parameter.high
    if parameter.step > 1:
        schema["multipleOf"] = parameter.step
    return schema


def _described_text(longest: int, description: str) -> dict[str, Any]:
    return {"type": ["string", "null"], "maxLength": longest, "description": description}


START_BODY: Final = json_body(
    {
        "type": "object",
        "properties": {
            "project": {
                "type": ["string", "integer"],
                "description": 'Number, "<id>.<created_at>" or key of a Label Studio project.',
            },
            "artifact": _described_text(
                LONGEST_ARTIFACT,
                "A dataset: the absolute path of a folder under DATA_ROOTS, the address of a zip "
                "or tar archive, or the name of a known dataset.",
            ),
            "train_images": _described_text(
                LONGEST_PATTERN, "Folder, or pattern with one *, in the dataset."
            ),
            "train_annotations": _described_text(
                LONGEST_PATTERN, "Of the masks: a folder with the same names, or a pattern."
            ),
            "test_images": _described_text(LONGEST_PATTERN, "Images that nothing is learned from."),
            "test_annotations": _described_text(LONGEST_PATTERN, "Of their masks."),
            "metadata_dir": _described_text(
                LONGEST_PATTERN, "Folder with JSON files that name image_path and mask_path."
            ),
            "model": _described_text(
                LONGEST_MODEL,
                "To start a dataset's training from: auto, a model's name, the id of a session "
                "that made one, or the path of a checkpoint under DATA_ROOTS.",
            ),
            "label": _described_text(LONGEST_LABEL, "A word of your own, to find it by."),
            **{parameter.name: _described(parameter) for parameter in PARAMETERS},
        },
        "additionalProperties": False,
        "oneOf": [{"required": ["project"]}, {"required": ["artifact"]}],
    },
    example={
        "artifact": "/data/nuclei",
        "train_images": "images/*.tif",
        "train_annotations": "masks/*_label.tif",
        "n_epochs": 50,
        "label": "nuclei",
    },
)
RESTART_BODY: Final = json_body(
    {
        "type": "object",
        "properties": {
            "n_epochs": {
                "type": ["integer", "null"],
                "minimum": 1,
                "maximum": 100_000,
                "description": "null = as many as the old one was given.",
            }
        },
        "additionalProperties": False,
    },
    example={"n_epochs": 100},
    required=False,
)
