"""The root tag's attributes that say when a project is trained, how, and what becomes of it.

They change no prediction, so they are no part of `canonical_config`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from ml_backend.labelstudio.config_tags import tag_text
from ml_backend.labelstudio.options import (
    Option,
    boolean,
    integer,
    model_attributes,
    number,
    read_options,
    shown,
)
from ml_backend.learning import LearningOptions, Multiple, Promotion

_DAY_S = 86_400.0


def _one_of(values: Mapping[str, Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        if text.lower() not in values:
            raise ValueError(text)
        return values[text.lower()]

    return read


def _members(kind: type[StrEnum]) -> Callable[[str], Any]:
    return _one_of({member.value: member for member in kind})


LEARNING_OPTIONS: Mapping[str, Option] = {
    "model_training": Option(
        read=_one_of({"auto": False, "manual": True}),
        allowed="auto or manual",
        default="what TRAINING says",
        meaning="Whether new annotations start a training, or only people do.",
    ),
    "model_training_tasks": Option(
        read=integer(1, 1_000_000),
        allowed="a whole number above 0",
        default="what TRAINING_TASKS says",
        meaning="So many tasks must be new or changed since the last training.",
    ),
    "model_training_quiet": Option(
        read=number(0, high=_DAY_S),
        allowed="a number of seconds from 0 upwards",
        default="what TRAINING_QUIET_S says",
        meaning="So long nobody must have annotated.",
    ),
    "model_training_pause": Option(
        read=number(0, high=30 * _DAY_S),
        allowed="a number of seconds from 0 upwards",
        default="what TRAINING_PAUSE_S says",
        meaning="So long the last training must be over.",
    ),
    "model_training_min_tasks": Option(
        read=integer(1, 1_000_000),
        allowed="a whole number above 0",
        default="what TRAINING_MIN_TASKS says",
        meaning="So many tasks must be annotated in all.",
    ),
    "model_training_minutes": Option(
        read=number(0, above=True, high=100_000),
        allowed="a number of minutes above 0",
        default="what TRAINING_MINUTES says",
        meaning="Learning takes at most so long; preparing and comparing come on top.",
    ),
    "model_promote": Option(
        read=_members(Promotion),
        allowed="auto, always or never",
        default="what PROMOTE says",
        meaning=(
            "Whether a trained network is served by itself: when it scores better, in any case, or "
            "only when a person activates it."
        ),
    ),
    "model_start_from": Option(
        read=_one_of({"base": False, "active": True}),
        allowed="base or active",
        default="base",
        meaning="Whether a training starts from the base network or from the one that is served.",
    ),
    "model_epochs": Option(
        read=integer(1, 100_000),
        allowed="a whole number above 0",
        default="the network's own",
        meaning="How often a training goes through its samples.",
    ),
    "model_samples": Option(
        read=integer(1, 1_000_000),
        allowed="a whole number above 0",
        default="from the number of images",
        meaning="Image crops per epoch.",
    ),
    "model_batch_size": Option(
        read=integer(1, 1024),
        allowed="a whole number from 1 to 1024",
        default="the network's own",
        meaning="Image crops per step; halved when memory does not suffice.",
    ),
    "model_learning_rate": Option(
        read=number(0, above=True, high=10),
        allowed="a number above 0, at most 10",
        default="the network's own",
        meaning="Largest step size of the training.",
    ),
    "model_weight_decay": Option(
        read=number(0, high=10),
        allowed="a number from 0 to 10",
        default="the network's own",
        meaning="How strongly weights are pulled to zero.",
    ),
    "model_validation_interval": Option(
        read=integer(1, 100_000),
        allowed="a whole number above 0",
        default="the network's own",
        meaning="Epochs between two scores on the images that are held out.",
    ),
    "model_min_train_masks": Option(
        read=integer(0, 1_000_000),
        allowed="a whole number from 0 upwards",
        default="1",
        meaning="Images with fewer objects are not trained on, unless they are empty.",
    ),
    "model_rescale": Option(
        read=boolean,
        allowed="true or false",
        default="true",
        meaning="Whether images are resized so that objects have the size the network knows.",
    ),
    "model_lora_rank": Option(
        read=integer(0, 1024),
        allowed="a whole number from 0 (train all weights) to 1024",
        default="0",
        meaning="Rank of the adapters that are trained instead of a transformer's weights.",
    ),
    "model_several_annotators": Option(
        read=_members(Multiple),
        allowed="latest or all",
        default="latest",
        meaning=(
            "Which annotations of a task count: the ground truth or else the newest, or each, "
            "weighing one together."
        ),
    ),
    "model_leave_out_unfinished": Option(
        read=boolean,
        allowed="true or false",
        default="false",
        meaning="Whether tasks with far fewer objects than the base network finds are left out.",
    ),
}
"""Every attribute that the root tag may carry for training."""

_POLICY = {
    "model_training": "manual",
    "model_training_tasks": "new_tasks",
    "model_training_quiet": "quiet_s",
    "model_training_pause": "pause_s",
    "model_training_min_tasks": "min_tasks",
}
_PARAMETERS = {
    "model_training_minutes": "max_minutes",
    "model_start_from": "from_active",
    "model_epochs": "n_epochs",
    "model_samples": "n_samples",
    "model_batch_size": "batch_size",
    "model_learning_rate": "learning_rate",
    "model_weight_decay": "weight_decay",
    "model_validation_interval": "validation_interval",
    "model_min_train_masks": "min_train_masks",
    "model_rescale": "rescale",
    "model_lora_rank": "lora_rank",
    "model_several_annotators": "multiple",
    "model_leave_out_unfinished": "leave_out_unfinished",
}


def read_root_options(root: Element) -> tuple[dict[str, Any], list[str]]:
    """Return the root tag's learning options, and a problem for each that cannot be read."""
    given = model_attributes(root.attrib)
    found = {name: text for name, text in given.items() if name in LEARNING_OPTIONS}
    where = dict.fromkeys(found, tag_text(root))
    return read_options(found, where, known=LEARNING_OPTIONS)


def read_learning_options(
    xml: str, defaults: LearningOptions
) -> tuple[LearningOptions, tuple[str, ...]]:
    """Return what a label config says about learning, on top of the settings.

    Args:
        xml: The label config; one that cannot be read leaves the defaults.
        defaults: What holds without it.

    Returns:
        The options, and a sentence for each that is ignored.
    """
    try:
        root: Element = fromstring(xml, forbid_dtd=True)
    except (DefusedXmlException, ParseError, ValueError, LookupError):
        return defaults, ("The label config cannot be read; the settings say how to train.",)
    values, problems = read_root_options(root)
    warnings = [f"{problem}, so it is ignored." for problem in problems]
    options = replace(
        defaults,
        policy=replace(defaults.policy, **_renamed(values, _POLICY)),
        parameters=replace(defaults.parameters, **_renamed(values, _PARAMETERS)),
        promotion=values.get("model_promote", defaults.promotion),
        roi_label=_said_once(root, "model_roi", warnings) or defaults.roi_label,
        group_field=_said_once(root, "model_group", warnings) or defaults.group_field,
    )
    return options, tuple(warnings)


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {ours: values[name] for name, ours in names.items() if name in values}


def _said_once(root: Element, name: str, warnings: list[str]) -> str | None:
    """Return an option that may stand on any tag but holds for the whole project."""
    said = [
        (attributes[name], tag_text(element))
        for element in root.iter()
        if name in (attributes := model_attributes(element.attrib))
    ]
    values = list(dict.fromkeys(value for value, _ in said))
    if len(values) > 1:
        warnings.append(
            f"{name} is {' and '.join(map(shown, values))}; training uses {shown(values[0])} of "
            f"{said[0][1]}, so set it once, on the root tag."
        )
    return values[0] if values else None
