"""What of an activation is carried out for a label config, which people change meanwhile.

A network that was trained for one base network, or for other channels, is never served where
another is asked for by then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ml_backend.domain import Component, LabelConfig, ServedControl
from ml_backend.errors import ConfigError
from ml_backend.learning import Activation
from ml_backend.store.activation_rows import Serving


class NotAskedFor(ConfigError):
    """The label config asks for something else than this version; activate another one."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What of an activation is carried out."""

    components: Mapping[str, Component]  # by control: what it is served with
    removed: tuple[str, ...]  # controls that get their base network
    overrides: Mapping[str, Serving]  # what is noted as served, also for when it is asked for
    notes: tuple[str, ...]  # for people, without a full stop


def change_for(
    activation: Activation, config: LabelConfig, asked_by: Callable[[ServedControl], str]
) -> Change:
    """Return what of `activation` is for a label config.

    Args:
        activation: what was asked for, perhaps a while ago.
        config: as it is now.
        asked_by: returns what a control asks for now.

    Raises:
        NotAskedFor: nothing of it is.
    """
    controls = {control.name: control for control in config.served}
    named = {*activation.components, *activation.removed}
    if named and not named & controls.keys():
        raise NotAskedFor(
            f"The label config has no control {', '.join(sorted(named))} any more; it has "
            f"{', '.join(sorted(controls))}."
        )
    servings = {
        name: _serving(activation, name, asked_by(controls[name]))
        for name in controls
        if name in activation.components
    }
    others = {
        name: f"The control {name} asks for {asked_by(controls[name])} by now, and "
        f"{serving.version_name} was {_meant(serving)} for {serving.base_requested}"
        for name, serving in servings.items()
        if serving.base_requested != asked_by(controls[name])
    }
    fitting = {name: one.component for name, one in servings.items() if name not in others}
    if activation.is_rollback:  # what was noted then is noted again, and does not count again
        return Change(
            components=fitting,
            removed=(*activation.removed, *others),
            overrides=servings,
            notes=tuple(f"{reason}, so it gets its base network" for reason in others.values()),
        )
    if others and not fitting:
        raise NotAskedFor(
            f"{'; '.join(others.values())}. Change the label config back and activate it again, "
            "or train anew."
        )
    return Change(
        components=fitting,
        removed=activation.removed,
        overrides={name: servings[name] for name in fitting},
        notes=tuple(f"{reason}, so it keeps what it has" for reason in others.values()),
    )


def _meant(serving: Serving) -> str:
    return "trained" if serving.version_project is None else "activated"


def _serving(activation: Activation, control: str, asked_now: str) -> Serving:
    component, origin = activation.components[control], activation.origins.get(control)
    if origin is None:
        return Serving(component=component, base_requested=asked_now, version_name=component.name)
    return Serving(
        component=component,
        base_requested=asked_now if origin.base_requested is None else origin.base_requested,
        version_name=origin.version_name,
        version_project=origin.version_project,
    )
