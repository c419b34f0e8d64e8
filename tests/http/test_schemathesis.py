"""Requests made up from the OpenAPI description, right ones and wrong ones.

None may end in an error of ours, and every answer must be as it is described. The seed is fixed.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ml_backend.callers import Caller, Role
from ml_backend.domain import ProjectKey
from ml_backend.learning import EpochPoint, SessionState, TrainingParameters, Trigger
from ml_backend.store.database import Database
from ml_backend.store.schema import Base
from ml_backend.store.sessions import Sessions
from ml_backend.web.app import create_app
from tests.http.conftest import Backend, MakeBackend

pytestmark = pytest.mark.unhurried

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "10"))  # of each route, right and wrong
PROJECT = ProjectKey(origin="http://ls.example", project_id=1, created_at=2)
MISSING = ("engine.", "label_studio.")  # what may be away: the beginnings of its codes
EVENTS = "text/event-stream"  # schemathesis reads the schema of a text as that of one event
OF_LABEL_STUDIO = (
    *("/", "/health", "/setup", "/predict", "/webhook", "/job_status", "/versions"),
    "/refused/{sentence}",
)
"""Routes whose errors OpenAPI does not describe: Label Studio looks at nothing of them."""


@dataclass(frozen=True, kw_only=True)
class World:
    """An application in whose records there is something to find."""

    backend: Backend
    operations: list[APIOperation[Any, Any, Any]]
    names: dict[str, str]  # of what there is, by path parameter

    def begin_anew(self) -> None:
        """Put the records back as they were: a route may delete or start things."""
        database: Database = self.backend.own.projects._database
        with database.write() as session:
            for table in reversed(Base.metadata.sorted_tables):
                session.execute(sa.delete(table))
        self.backend.start_engine()
        assert self.backend.setup("1.2").status_code == 200
        self.names["session_id"] = _ended_session(Sessions(database))
        self.names.update(project="1", name="nuclei-1")


def _ended_session(sessions: Sessions) -> str:
    """Make a session that has ended: the events of another would never end either."""
    session = sessions.request(
        PROJECT, controls=["cells"], trigger=Trigger.PERSON, parameters=TrainingParameters()
    )
    lease = sessions.claim(session.id, owner="trainer", lease_s=60)
    assert lease is not None
    sessions.point(lease, EpochPoint(epoch=1, step=3, loss=0.5, learning_rate=0.1))
    sessions.finish(lease, SessionState.STOPPED, message="Stopped.")
    return session.id


@pytest.fixture
def world(make_backend: MakeBackend) -> World:
    """Return an application that an admin in this process calls."""
    backend = make_backend()
    app = create_app(backend.own, in_process=Caller(name="anna", role=Role.ADMIN))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [result.ok() for result in schema.get_all_operations()]
    return World(backend=backend, operations=operations, names={})


def complaint(world: World, case: schemathesis.Case, *, known: bool) -> str | None:
    """Send one request; return what is wrong with the answer."""
    if known:  # make up the rest, but of something that there is
        for name, value in world.names.items():
            if name in (case.path_parameters or {}):
                case.path_parameters[name] = value
    answer = case.call()
    if answer.status_code >= 500 and case.operation.label != "GET /readyz":
        code = str(answer.json().get("code", ""))
        if answer.status_code not in (502, 503) or not code.startswith(MISSING):
            return f"{answer.status_code} {answer.content[:300]!r}"
    checks = [content_type_conformance, response_headers_conformance]
    if case.operation.path not in OF_LABEL_STUDIO:
        checks.append(status_code_conformance)
    if EVENTS not in "".join(answer.headers.get("content-type", [])):
        checks.append(response_schema_conformance)
    try:
        case.validate_response(answer, checks=checks)
    except (AssertionError, BaseExceptionGroup) as error:  # one, or several
        return "\n".join(map(str, getattr(error, "exceptions", [error])))
    return None


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_request_is_an_error_of_ours_and_every_answer_is_as_described(
    world: World, mode: GenerationMode
) -> None:
    complaints: dict[str, str] = {}
    answered: Counter[str] = Counter()

    for operation in world.operations:
        world.begin_anew()

        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode), known=st.booleans())
        def ask(case: schemathesis.Case, known: bool) -> None:
            answered[case.operation.label] += 1
            wrong = complaint(world, case, known=known)
            if wrong is not None:
                complaints.setdefault(case.operation.label, f"{case.as_curl_command()}\n{wrong}")

        with suppress(Unsatisfiable):  # nothing about it can be wrong
            ask()

    assert not complaints, "\n\n".join(f"{label}: {text}" for label, text in complaints.items())
    if mode is GenerationMode.POSITIVE:
        assert set(answered) == {operation.label for operation in world.operations}
