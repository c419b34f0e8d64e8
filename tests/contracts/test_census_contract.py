"""What counting and looking at the records promise on every database."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from ml_backend.domain import Prediction
from ml_backend.errors import StoreError
from ml_backend.learning import SessionState, TrainingParameters, Trigger, Version, VersionState
from ml_backend.store.census import CensusTaker, Work
from ml_backend.store.database import Database
from ml_backend.store.events import Events
from ml_backend.store.predictions import KeptPredictions, PredictionKey
from ml_backend.store.readiness import RecordsState, look_at_records
from ml_backend.store.sessions import Sessions
from ml_backend.store.trainers import GONE_AFTER_S, Trainers
from ml_backend.store.versions import Versions
from tests.contracts.learning_records import PROJECT, component
from tests.fakes import ManualClock
from tests.servers import fresh_postgres_database


def requested(sessions: Sessions, control: str) -> str:
    """Return the id of a session that was asked for."""
    return sessions.request(
        PROJECT, controls=[control], trigger=Trigger.PERSON, parameters=TrainingParameters()
    ).id


class TestCensus:
    def test_in_empty_records_everything_is_there_with_0(self, database: Database) -> None:
        census = CensusTaker(database).take()

        assert census.work == Work(queued=0, running=0, trainers=0)
        assert census.sessions == dict.fromkeys(SessionState, 0)
        assert census.versions == dict.fromkeys(VersionState, 0)
        assert set(census.activations.values()) == {0}
        assert (census.predictions, census.prediction_bytes, census.waiting_events) == (0, 0, 0)

    def test_sessions_count_by_state_and_running_ones_only_while_they_are_held(
        self, database: Database
    ) -> None:
        clock = ManualClock()
        sessions, taker = Sessions(database, clock=clock), CensusTaker(database, clock=clock)
        ids = [requested(sessions, control) for control in "abcd"]
        for session_id, lease_s in zip(ids[:3], (10, 100, 100), strict=True):
            lease = sessions.claim(session_id, owner="t", lease_s=lease_s)
            assert lease is not None
        sessions.finish(lease, SessionState.FAILED, message="no")
        clock.forward(50)

        census = taker.take()

        assert census.sessions == {
            SessionState.QUEUED: 1,
            SessionState.RUNNING: 2,
            SessionState.COMPLETED: 0,
            SessionState.FAILED: 1,
            SessionState.STOPPED: 0,
        }
        assert census.work == taker.work() == Work(queued=1, running=1, trainers=0)

    def test_trainers_count_while_they_are_there(self, database: Database) -> None:
        clock = ManualClock()
        trainers, taker = Trainers(database, clock=clock), CensusTaker(database, clock=clock)
        trainers.seen("a")
        clock.forward(GONE_AFTER_S / 2)
        trainers.seen("b")
        both = taker.work().trainers
        clock.forward(GONE_AFTER_S / 2 + 1)

        assert (both, taker.work().trainers, len(trainers.present())) == (2, 1, 1)

    def test_kept_predictions_and_waiting_events_count(self, database: Database) -> None:
        kept = KeptPredictions(database)
        keys = [
            PredictionKey(project=str(PROJECT), task_id=n, version="v", input_hash="h")
            for n in range(3)
        ]
        for key in keys:
            kept.claim(key, "engine", lease_s=60)
        for key in keys[:2]:
            kept.complete(key, "engine", Prediction(result=[], score=0.5, model_version="v"))
        Events(database).record(action="ANNOTATION_CREATED", payload=b"{}")

        census = CensusTaker(database).take()

        with database.read() as session:
            size = session.scalar(sa.text("SELECT SUM(LENGTH(entry)) FROM predictions"))
        assert (census.predictions, census.prediction_bytes) == (2, size)
        assert census.waiting_events == 1

    def test_versions_and_swaps_count_by_state(self, database: Database) -> None:
        versions = Versions(database)
        made = Version(
            name="v1",
            project=PROJECT,
            state=VersionState.CANDIDATE,
            controls=("cells",),
            component=component("v1"),
            session_id=None,
            parent="base",
            created_at=1.0,
            metrics={},
            message=None,
            base_requested="auto",
        )
        for name, state in (("v1", "candidate"), ("v2", "candidate"), ("v3", "refused")):
            versions.add(replace(made, name=name, state=VersionState(state)))
        versions.request(PROJECT, components={"cells": made.component}, reason="a person")

        census = CensusTaker(database).take()

        assert census.versions[VersionState.CANDIDATE] == 2
        assert census.versions[VersionState.REFUSED] == 1
        assert {state.value: n for state, n in census.activations.items()} == {
            "requested": 1, "warmed": 0, "done": 0, "failed": 0,
        }  # fmt: skip


class TestReadiness:
    def test_migrated_records_are_ready(self, database: Database) -> None:
        assert look_at_records(database) is RecordsState.READY

    def test_records_without_tables_are_of_another_version(self, address: str) -> None:
        database = Database(address)

        assert look_at_records(database) is RecordsState.OTHER_VERSION
        database.close()

    @pytest.mark.parametrize("revision", ["0003", "9999"])
    def test_older_and_newer_records_are_of_another_version(
        self, fresh_database: Database, revision: str
    ) -> None:
        with fresh_database.write() as session:
            change = sa.text("UPDATE alembic_version SET version_num = :revision")
            session.execute(change, {"revision": revision})

        assert look_at_records(fresh_database) is RecordsState.OTHER_VERSION

    def test_a_writer_at_work_does_not_hold_the_look_up(self, database: Database) -> None:
        with database.write() as session:
            session.execute(sa.text("UPDATE projects SET origin = 'x'"))

            assert look_at_records(database) is RecordsState.READY

    def test_a_database_that_only_reads_is_told(self, postgres: str) -> None:
        with fresh_postgres_database(postgres) as address:
            database = Database(address)
            database.migrate()
            with database.engine.connect() as connection:
                connection.exec_driver_sql(
                    f'ALTER DATABASE "{database.url.database}" '
                    "SET default_transaction_read_only = on"
                )
                connection.commit()
            database.close()  # it holds for new connections

            assert look_at_records(database) is RecordsState.READ_ONLY
            database.close()

    def test_records_that_are_away_cannot_be_looked_at(self) -> None:
        database = Database("postgresql://nobody@127.0.0.1:1/nothing")

        with pytest.raises(StoreError, match="cannot be read"):
            look_at_records(database)


class TestDisk:
    def test_a_file_that_cannot_be_written_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
        database.migrate()
        # a superuser may write everywhere but on a disk that is read-only
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK or path != tmp_path)

        assert look_at_records(database) is RecordsState.READ_ONLY
        database.close()

    @pytest.mark.parametrize(
        ("free", "state"), [(10_000_000, RecordsState.DISK_FULL), (10**9, RecordsState.READY)]
    )
    def test_a_full_disk_is_told_before_writes_fail(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: RecordsState
    ) -> None:
        database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
        database.migrate()
        usage = shutil.disk_usage(tmp_path)._replace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)

        assert look_at_records(database) is state
        database.close()
