"""Rows of activations and of what is served: their reading, and who may work on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import aliased

from ml_backend.domain import Component, ProjectKey
from ml_backend.learning import Activation, ActivationState, Origin
from ml_backend.store.packing import component_from_json, component_to_json, from_json, to_json
from ml_backend.store.projects import parse_key
from ml_backend.store.schema import ActivationRow

OPEN = (ActivationState.REQUESTED, ActivationState.WARMED)
"""States in which an activation is still to be done."""

POSTPONED = "postponed"
"""The owner of an activation that is tried again when its lease has run out."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """A trained network that a control is served with."""

    component: Component
    base_requested: str  # what the control asked for; where it asks for another, it counts not
    version_name: str  # of the `Version`
    version_project: ProjectKey | None = None  # whose version; None: the project's own


def is_open() -> ColumnElement[bool]:
    """Return the condition that an activation is still to be done."""
    return ActivationRow.state.in_(OPEN)


def is_due(now: float) -> ColumnElement[bool]:
    """Return the condition that an engine may take an activation on: one a project at a time."""
    earlier = aliased(ActivationRow)
    has_earlier = (
        select(earlier.id)
        .where(
            earlier.project == ActivationRow.project,
            earlier.id < ActivationRow.id,
            earlier.state.in_(OPEN),
        )
        .exists()
    )
    is_free = or_(ActivationRow.owner.is_(None), ActivationRow.lease_until <= now)
    return and_(is_open(), is_free, ~has_earlier)


def to_activation(row: ActivationRow) -> Activation:
    """Return the activation in a row."""
    components: dict[str, Any] = from_json(row.components)
    return Activation(
        id=row.id,
        project=parse_key(row.project),
        state=ActivationState(row.state),
        release=row.release,
        components={name: component_from_json(stored) for name, stored in components.items()},
        removed=tuple(from_json(row.removed)),
        reason=row.reason,
        message=row.message,
        created_at=row.created_at,
        finished_at=row.finished_at,
        origins={name: _origin_of(stored) for name, stored in from_json(row.origins).items()},
        is_rollback=row.restores is not None,
        attempts=row.attempts,
    )


def components_to_json(components: Mapping[str, Component]) -> bytes:
    """Return components by control as JSON."""
    return to_json({name: component_to_json(one) for name, one in components.items()})


def origins_to_json(origins: Mapping[str, Origin]) -> bytes:
    """Return origins by control as JSON."""
    return to_json(
        {
            name: {
                "version_name": origin.version_name,
                "base_requested": origin.base_requested,
                "version_project": _to_text(origin.version_project),
            }
            for name, origin in origins.items()
        }
    )


def _origin_of(stored: Mapping[str, Any]) -> Origin:
    return Origin(
        version_name=stored["version_name"],
        base_requested=stored["base_requested"],
        version_project=_to_key(stored.get("version_project")),
    )


def _to_text(project: ProjectKey | None) -> str | None:
    return None if project is None else str(project)


def _to_key(stored: str | None) -> ProjectKey | None:
    return None if stored is None else parse_key(stored)


def serving_to_json(serving: Serving) -> dict[str, Any]:
    """Return what a control is served with as a JSON-able mapping."""
    return {
        "component": component_to_json(serving.component),
        "base_requested": serving.base_requested,
        "version_name": serving.version_name,
        "version_project": _to_text(serving.version_project),
    }


def serving_from_json(stored: Mapping[str, Any]) -> Serving:
    """Return what a control is served with from its mapping."""
    return Serving(
        component=component_from_json(stored["component"]),
        base_requested=stored["base_requested"],
        version_name=stored["version_name"],
        version_project=_to_key(stored.get("version_project")),
    )


def served_since(row: ActivationRow) -> dict[str, Serving]:
    """Return all that was served from the end of a change on."""
    stored = {} if row.served is None else from_json(row.served)
    return {name: serving_from_json(one) for name, one in stored.items()}


def way_to_here(done: Sequence[ActivationRow]) -> list[ActivationRow]:
    """Return the changes that led to what is served now, less those that were rolled back."""
    way: list[ActivationRow] = []
    for row in reversed(done):
        if row.restores is None:
            way.append(row)
        else:
            while way and way[-1].id != row.restores:
                way.pop()
    return way
