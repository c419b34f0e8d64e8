"""What the requested models resolved to, so that a process without torch can answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, select, update

from ml_backend.domain import Component
from ml_backend.store.database import Database
from ml_backend.store.schema import ComponentRow
from ml_backend.store.upsert import insert_if_new, insert_or_replace

ASK_AGAIN_AFTER_S = 30.0  # about a model that could not be served

_COMPONENT_COLUMNS = ("name", "architecture", "sha256", "path", "licence", "diameter", "device")


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """What an engine found for a requested model; nothing set: it has not looked yet."""

    requested: str  # the MODEL setting or a control's model option
    component: Component | None = None
    device: str | None = None
    problem: str | None = None  # a sentence, when the model cannot be served
    wanted: bool = False  # engines are asked to look, for the first time or again


class Components:
    """The table of resolved models: engines write it, the web process reads it."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def record(self, requested: str, component: Component, *, device: str) -> None:
        """Keep what `requested` resolved to; writes only on change.

        Raises:
            StoreError
        """
        self._keep(Resolution(requested=requested, component=component, device=device))

    def record_problem(self, requested: str, problem: str) -> None:
        """Keep why `requested` cannot be served, as a sentence for a person.

        Raises:
            StoreError
        """
        self._keep(Resolution(requested=requested, problem=problem))

    def want(self, requested: str) -> Resolution:
        """Return what is known of `requested`; where that is nothing, ask the engines to look.

        They are asked again about a model that could not be served a while ago: its file may
        have been put there since. Until they have looked, the problem is what is known.

        Raises:
            StoreError
        """
        with self._database.read() as session:
            row = session.get(ComponentRow, requested)
            known = None if row is None else _to_resolution(row)
            age_s = 0.0 if row is None else self._clock() - row.recorded_at
        if known is None:
            known = Resolution(requested=requested, wanted=True)
            with self._database.write() as session:
                insert_if_new(session, ComponentRow, self._values(known))
        elif known.problem is not None and not known.wanted and age_s >= ASK_AGAIN_AFTER_S:
            with self._database.write() as session:
                asked = update(ComponentRow).where(ComponentRow.requested == requested)
                session.execute(asked.values(wanted=True))
        return known

    def wanted(self) -> list[str]:
        """Return what engines are asked to look at and have not looked at since.

        Raises:
            StoreError
        """
        query = select(ComponentRow.requested).where(ComponentRow.wanted)
        with self._database.read() as session:
            return list(session.scalars(query))

    def forget(self, requested: str) -> None:
        """Drop what `requested` resolved to and ask the engines to look again.

        For a component whose file is not what it was.

        Raises:
            StoreError
        """
        self._forget(ComponentRow.requested == requested)

    def forget_file(self, path: str) -> None:
        """Drop everything that resolved to this file and ask the engines to look again.

        For a model that must not be used any more.

        Raises:
            StoreError
        """
        self._forget(ComponentRow.path == path)

    def forget_others(self, requested: str) -> None:
        """Drop what everything but `requested` resolved to and ask the engines to look again.

        For the start of an engine: a path may lead to other weights by now.

        Raises:
            StoreError
        """
        self._forget(ComponentRow.requested != requested)

    def _forget(self, those: ColumnElement[bool]) -> None:
        empty = dict.fromkeys(_COMPONENT_COLUMNS)
        with self._database.write() as session:
            session.execute(update(ComponentRow).where(those).values(**empty, wanted=True))

    def resolved(self, requested: str) -> Component | None:
        """Return what `requested` resolved to, None if nothing (yet).

        Raises:
            StoreError
        """
        resolution = self.resolution(requested)
        return None if resolution is None else resolution.component

    def resolution(self, requested: str) -> Resolution | None:
        """Return everything known of `requested`, None if nobody asked for it.

        Raises:
            StoreError
        """
        with self._database.read() as session:
            row = session.get(ComponentRow, requested)
            return None if row is None else _to_resolution(row)

    def _keep(self, resolution: Resolution) -> None:
        if self.resolution(resolution.requested) == resolution:
            return
        with self._database.write() as session:
            insert_or_replace(session, ComponentRow, self._values(resolution))

    def _values(self, resolution: Resolution) -> dict[str, Any]:
        component = resolution.component
        return {
            "requested": resolution.requested,
            "name": component.name if component else None,
            "architecture": component.architecture if component else None,
            "sha256": component.sha256 if component else None,
            "path": component.path if component else None,
            "licence": component.licence if component else None,
            "diameter": component.diameter if component else None,
            "device": resolution.device,
            "problem": resolution.problem,
            "wanted": resolution.wanted,
            "recorded_at": self._clock(),
        }


def _to_resolution(row: ComponentRow) -> Resolution:
    component = None
    if row.name is not None:
        component = Component(
            name=row.name,
            architecture=row.architecture or "",
            sha256=row.sha256 or "",
            path=row.path or "",
            licence=row.licence or "unknown",
            diameter=row.diameter,
        )
    return Resolution(
        requested=row.requested,
        component=component,
        device=row.device,
        problem=row.problem,
        wanted=row.wanted,
    )
