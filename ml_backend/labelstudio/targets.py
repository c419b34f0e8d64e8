"""Which controls of a label config share a network, and so a training session."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass

from ml_backend.domain import Control, ControlTag, LabelConfig
from ml_backend.learning import LearningOptions

_POINTS = frozenset({ControlTag.KEYPOINT, ControlTag.KEYPOINT_LABELS})


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
        return tuple(control for control in self.controls if control.tag not in _POINTS)


def asked_by(control: Control, default_model: str) -> str:
    """Return what a control asks for: a base network, and the pixels that it is to see.

    A network that was trained for a control that asked for one thing is not served where another
    is asked for. People read it in messages.

    Args:
        control: of a label config.
        default_model: the MODEL setting, for a control that names none.
    """
    options = control.segmentation
    details = []
    if options.channels is not None:
        details.append(f"channels {', '.join(map(str, options.channels))}")
    if options.plane is not None:
        details.append(f"plane {options.plane}")
    model = options.model or default_model
    return f"{model} ({'; '.join(details)})" if details else model


def targets_of(config: LabelConfig) -> tuple[Target, ...]:
    """Return the targets of a label config, those without an outlining control left out."""
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


def find_target(config: LabelConfig, controls: Collection[str]) -> Target | None:
    """Return the target of exactly these controls, None when the config groups them otherwise."""
    wanted = set(controls)
    return next((target for target in targets_of(config) if set(target.names) == wanted), None)


def subject_of(target: Target, options: LearningOptions) -> str:
    """Return a hash of all in a label config that decides what a target learns.

    Two sessions with equal annotations, parameters and subjects learn the same.
    """
    content = {
        "controls": [
            {
                "tag": control.tag.value,
                "name": control.name,
                "labels": list(control.labels),
                "labels_name": control.labels_name,
                "label": control.label,
                "segmentation": control.segmentation.canonical(),
            }
            for control in target.controls
        ],
        "roi_label": options.roi_label,
        "group_field": options.group_field,
    }
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
