"""Networks that can be asked, served or trained further."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ml_backend.client.project import Project


@dataclass(frozen=True, kw_only=True)
class Served:
    """What a network feeds."""

    project: str  # key of the project
    control: str  # of its label config


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A network by its name."""

    name: str
    kind: str  # built_in, published, candidate, refused, archived or uploaded
    licence: str | None = None  # of the weights, never laxer than of what it was made from
    architecture: str | None = None
    sha256: str | None = None  # of the weights; None = no engine has looked at them yet
    diameter: float | None = None  # of the objects it was fine-tuned on, pixels
    project: Project | None = None  # that it was trained for
    dataset: str | None = None  # that it was trained on
    session: str | None = None  # id of the session that made it
    parent: str | None = None  # the network that it was started from
    lineage: tuple[str, ...] = ()  # its parent, and so on, up to the base
    metrics: Mapping[str, Any] = field(default_factory=dict, repr=False)
    controls: tuple[str, ...] = ()  # that it was trained for
    serves: tuple[Served, ...] = ()  # what it feeds now
    state: str | None = None
    created_at: datetime | None = None
    url: str | None = None  # path of its description on the server
    message: str | None = None  # why it is kept as a candidate, or refused
    id: str | None = None  # names it wherever a model is named; of the models of a dataset
    available: bool = True  # whether its weights are there
