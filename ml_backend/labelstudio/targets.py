"""Which controls of a label config are trained together, and so in one session."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ml_backend.domain import (
    ChoicesControl,
    Control,
    DefaultModels,
    LabelConfig,
    ServedControl,
)
from ml_backend.labelstudio.option_values import POINTS
from ml_backend.learning import LearningOptions

EMBEDDER_PREFIX = "embedder:"
"""In front of an embedder's name where names of networks and embedders stand together."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """The controls that one network is trained for: they see the same pixels of the same image."""

    controls: tuple[Control, ...]  # in the config's order; at least one outlines objects
    value_key: str  # key in task data that holds the image's address
    model: str | None  # the requested base network; None = what MODEL names
    plane: int | None
    channels: tuple[int, ...] | None

    @property
    def names(self) -> tuple[str, ...]:
        """Return the controls' names, as sessions and versions keep them."""
        return tuple(control.name for control in self.controls)

    @property
    def teachers(self) -> tuple[Control, ...]:
        """Return the controls whose regions outline objects; a point says nothing of a mask."""
        return tuple(control for control in self.controls if control.tag not in POINTS)


@dataclass(frozen=True, kw_only=True)
class ChoicesTarget:
    """The `Choices` controls that are learned together: they share the image's embedding."""

    controls: tuple[ChoicesControl, ...]  # in the config's order
    value_key: str  # key in task data that holds the image's address
    embedder: str | None  # the requested one; None = what EMBEDDER names
    plane: int | None
    channels: tuple[int, ...] | None
    shape: Control | None = None  # whose single objects have the choices; None = whole images

    @property
    def names(self) -> tuple[str, ...]:
        """Return the controls' names, as sessions and versions keep them."""
        return tuple(control.name for control in self.controls)


AnyTarget = Target | ChoicesTarget


def requested_by(control: ServedControl, models: DefaultModels) -> str:
    """Return the name of the base network or embedder that a control asks for.

    Args:
        control: of a label config.
        models: what the settings name, for a control that names none.
    """
    if isinstance(control, ChoicesControl):
        return EMBEDDER_PREFIX + (control.options.embedder or models.embedder)
    return control.segmentation.model or models.model


def asked_by(control: ServedControl, models: DefaultModels) -> str:
    """Return what a control asks for: a base network or embedder, and the pixels it is to see.

    What was trained for a control that asked for one thing is not served where another is asked
    for. People read it in messages.

    Args:
        control: of a label config.
        models: what the settings name, for a control that names none.
    """
    options = control.options if isinstance(control, ChoicesControl) else control.segmentation
    details = []
    if options.channels is not None:
        details.append(f"channels {', '.join(map(str, options.channels))}")
    if options.plane is not None:
        details.append(f"plane {options.plane}")
    requested = requested_by(control, models)
    return f"{requested} ({'; '.join(details)})" if details else requested


def targets_of(config: LabelConfig) -> tuple[AnyTarget, ...]:
    """Return the targets of a label config, those without an outlining control left out."""
    return (*_mask_targets(config), *_choices_targets(config))


def _mask_targets(config: LabelConfig) -> tuple[Target, ...]:
    groups: dict[tuple[object, ...], list[Control]] = {}
    for control in config.controls:
        options = control.segmentation
        key = (control.value_key, options.model, options.plane, options.channels)
        groups.setdefault(key, []).append(control)
    targets = (
        Target(
            controls=tuple(controls),
            value_key=controls[0].value_key,
            model=controls[0].segmentation.model,
            plane=controls[0].segmentation.plane,
            channels=controls[0].segmentation.channels,
        )
        for controls in groups.values()
    )
    return tuple(target for target in targets if target.teachers)


def _choices_targets(config: LabelConfig) -> tuple[ChoicesTarget, ...]:
    groups: dict[tuple[object, ...], list[ChoicesControl]] = {}
    for control in config.choices:
        options = control.options
        key = (
            control.value_key,
            options.embedder,
            options.plane,
            options.channels,
            control.objects_of,
        )
        groups.setdefault(key, []).append(control)
    shapes = {control.name: control for control in config.controls}
    return tuple(
        ChoicesTarget(
            controls=tuple(controls),
            value_key=controls[0].value_key,
            embedder=controls[0].options.embedder,
            plane=controls[0].options.plane,
            channels=controls[0].options.channels,
            shape=shapes.get(controls[0].objects_of or ""),
        )
        for controls in groups.values()
    )


def find_target(config: LabelConfig, controls: Collection[str]) -> AnyTarget | None:
    """Return the target of exactly these controls, None when the config groups them otherwise."""
    wanted = set(controls)
    return next((target for target in targets_of(config) if set(target.names) == wanted), None)


def subject_of(target: AnyTarget, options: LearningOptions) -> str:
    """Return a hash of all in a label config that decides what a target learns.

    Two sessions with equal annotations, parameters and subjects learn the same.
    """
    content: dict[str, Any] = {
        "controls": [
            _choices_subject(control)
            if isinstance(control, ChoicesControl)
            else _mask_subject(control)
            for control in target.controls
        ],
        "roi_label": options.roi_label,
        "group_field": options.group_field,
    }
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _mask_subject(control: Control) -> dict[str, Any]:
    return {
        "tag": control.tag.value,
        "name": control.name,
        "labels": list(control.labels),
        "labels_name": control.labels_name,
        "label": control.label,
        "classes": list(control.classes),
        "segmentation": control.segmentation.canonical(),
    }


def _choices_subject(control: ChoicesControl) -> dict[str, Any]:
    return {
        "name": control.name,
        "choices": list(control.choices),
        "multiple": control.multiple,
        "objects_of": control.objects_of,
        "options": control.options.canonical(),
        "clusters": control.options.clusters,
    }
