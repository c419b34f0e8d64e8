"""Changes of what a project serves: asked for, worked on by one engine, and the way back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from ml_backend.domain import Component, ProjectKey
from ml_backend.errors import StoreError
from ml_backend.learning import Activation, ActivationState, Origin
from ml_backend.store.activation_reading import ActivationReading, newest_first, serving_in
from ml_backend.store.activation_rows import (
    OPEN,
    POSTPONED,
    Serving,
    components_to_json,
    is_due,
    origins_to_json,
    served_since,
    serving_to_json,
    to_activation,
    way_to_here,
)
from ml_backend.store.packing import to_json
from ml_backend.store.schema import ActivationRow, ActiveReleaseRow, ReleaseRow, ServingRow
from ml_backend.store.upsert import insert_or_replace


class Activations(ActivationReading):
    """The tables of activations and of what is served instead of base networks."""

    def request(
        self,
        project: ProjectKey,
        *,
        components: Mapping[str, Component],
        removed: Iterable[str] = (),
        reason: str,
        origins: Mapping[str, Origin] | None = None,
    ) -> Activation:
        """Ask the engines for a change of what `project` serves.

        Args:
            project: Whose.
            components: By control: the networks to serve from then on.
            removed: Controls that go back to their base network.
            reason: A sentence for people: which session, which person.
            origins: By control, of the components; where none is given, the network is served
                for whatever the control asks for when it is activated.

        Raises:
            StoreError
        """
        with self._database.write() as session:
            self._hurry(session, project)
            return self._insert(
                session, project, components, removed, reason, origins or {}, restores=None
            )

    def roll_back(self, project: ProjectKey, *, reason: str) -> Activation:
        """Ask the engines to serve again what was served before; twice goes back twice.

        Raises:
            StoreError: a change is under way, or nothing was served before.
        """
        with self._database.write() as session:
            rows = newest_first(session, project)
            if any(row.state in OPEN for row in rows):
                raise StoreError(
                    f"Project {project} is changing what it serves; wait until that is done, "
                    "then roll back."
                )
            done = [row for row in rows if row.state == ActivationState.DONE]
            if not done:
                raise StoreError(f"Project {project} has served nothing but its base networks.")
            way = way_to_here(done)
            if not way:
                raise StoreError(
                    f"Project {project} is back at its base networks; activate a version by name."
                )
            before = way[-2] if len(way) > 1 else None
            target = {} if before is None else served_since(before)
            return self._insert(
                session,
                project,
                {control: one.component for control, one in target.items()},
                sorted(serving_in(session, project).keys() - target.keys()),
                reason,
                {
                    control: Origin(
                        version_name=one.version_name,
                        base_requested=one.base_requested,
                        version_project=one.version_project,
                    )
                    for control, one in target.items()
                },
                restores=0 if before is None else before.id,
            )

    def due(self, *, limit: int = 1) -> list[Activation]:
        """Return activations that `claim` would give out now, the oldest first.

        Of one project only its first open one; one whose engine died is due again.

        Raises:
            StoreError
        """
        query = select(ActivationRow).where(is_due(self._clock()))
        with self._database.read() as session:
            rows = session.scalars(query.order_by(ActivationRow.id).limit(limit))
            return [to_activation(row) for row in rows]

    def claim(self, activation_id: int, owner: str, lease_s: float) -> Activation | None:
        """Take an activation on; None when it is not to be had (any more, or yet).

        Raises:
            StoreError
        """
        now = self._clock()
        statement = (
            update(ActivationRow)
            .where(ActivationRow.id == activation_id, is_due(now))
            .values(owner=owner, lease_until=now + lease_s)
            .returning(ActivationRow.id)
        )
        with self._database.write() as session:
            if session.scalar(statement) is None:
                return None
            return to_activation(session.get_one(ActivationRow, activation_id))

    def renew(self, activation_id: int, owner: str, lease_s: float) -> bool:
        """Extend a claim; False when it is lost: another engine has it, or it is finished.

        Raises:
            StoreError
        """
        statement = (
            update(ActivationRow)
            .where(
                ActivationRow.id == activation_id,
                ActivationRow.owner == owner,
                ActivationRow.state.in_(OPEN),
            )
            .values(lease_until=self._clock() + lease_s)
            .returning(ActivationRow.id)
        )
        with self._database.write() as session:
            return session.scalar(statement) is not None

    def mark(
        self,
        activation_id: int,
        owner: str,
        state: ActivationState,
        release: str | None = None,
        message: str | None = None,
    ) -> None:
        """Note how far `owner` has come; DONE is written by `switch`.

        Raises:
            StoreError: `owner` has lost it, or it is finished.
        """
        if state is ActivationState.DONE:
            raise StoreError("An activation is done by switching what is served, not by a mark.")
        with self._database.write() as session:
            row = _hold(session, activation_id, owner)
            row.state = state
            row.release = release or row.release
            row.message = message or row.message
            if state not in OPEN:
                row.finished_at = self._clock()

    def postpone(self, activation_id: int, owner: str, *, pause_s: float, message: str) -> bool:
        """Give an activation back for a while; False when others wait for it to end.

        Args:
            activation_id: What came to nothing this time.
            owner: Who holds it, and does not afterwards.
            pause_s: Until it is due again, unless another change is asked for meanwhile.
            message: A sentence for people: why.

        Raises:
            StoreError: `owner` has lost it, or it is finished.
        """
        with self._database.write() as session:
            row = _hold(session, activation_id, owner)
            later = select(ActivationRow.id).where(
                ActivationRow.project == row.project,
                ActivationRow.id > row.id,
                ActivationRow.state.in_(OPEN),
            )
            if session.scalars(later.limit(1)).first() is not None:
                return False
            row.attempts += 1
            row.message = message
            row.owner, row.lease_until = POSTPONED, self._clock() + pause_s
            return True

    def switch(
        self,
        activation: Activation,
        *,
        overrides: Mapping[str, Serving],
        release_version: str,
        owner: str | None = None,
    ) -> None:
        """Write the pointer: from now on the project serves this, in one transaction.

        Args:
            activation: The change; it is DONE afterwards.
            overrides: By control: what it is served with instead of its base network. Controls
                that are not in it keep their own, those in `activation.removed` lose it.
            release_version: One of the project's releases, made of all this.
            owner: Who claimed it; None: whoever did.

        Raises:
            StoreError: `owner` has lost it, it is finished, or there is no such release.
        """
        project, now = str(activation.project), self._clock()
        with self._database.write() as session:
            row = _hold(session, activation.id, owner)
            if session.get(ReleaseRow, (project, release_version)) is None:
                raise StoreError(
                    f"Project {project} has no release {release_version!r}; make it first."
                )
            leaving = ServingRow.control.in_(set(activation.removed) - overrides.keys())
            session.execute(delete(ServingRow).where(ServingRow.project == project, leaving))
            for control, serving in overrides.items():
                packed = to_json(serving_to_json(serving))
                insert_or_replace(
                    session,
                    ServingRow,
                    {"project": project, "control": control, "serving": packed},
                )
            insert_or_replace(
                session,
                ActiveReleaseRow,
                {"project": project, "version": release_version, "activated_at": now},
            )
            served = serving_in(session, activation.project)
            row.served = to_json({name: serving_to_json(one) for name, one in served.items()})
            row.state = ActivationState.DONE
            row.release = release_version
            row.finished_at = now

    def _hurry(self, session: Session, project: ProjectKey) -> None:
        # a change that was postponed holds up the next one: its last try is now
        session.execute(
            update(ActivationRow)
            .where(
                ActivationRow.project == str(project),
                ActivationRow.state.in_(OPEN),
                ActivationRow.owner == POSTPONED,
            )
            .values(lease_until=self._clock())
        )

    def _insert(
        self,
        session: Session,
        project: ProjectKey,
        components: Mapping[str, Component],
        removed: Iterable[str],
        reason: str,
        origins: Mapping[str, Origin],
        *,
        restores: int | None,
    ) -> Activation:
        row = ActivationRow(
            project=str(project),
            state=ActivationState.REQUESTED,
            components=components_to_json(components),
            removed=to_json(list(removed)),
            origins=origins_to_json(origins),
            reason=reason,
            lease_until=0.0,
            attempts=0,
            created_at=self._clock(),
            restores=restores,
        )
        session.add(row)
        session.flush()
        return to_activation(row)


def _hold(session: Session, activation_id: int, owner: str | None) -> ActivationRow:
    row = session.get(ActivationRow, activation_id, with_for_update=True)
    if row is None or row.state not in OPEN or owner not in (None, row.owner):
        raise StoreError(
            f"Activation {activation_id} is finished or another engine's by now; leave it."
        )
    return row
