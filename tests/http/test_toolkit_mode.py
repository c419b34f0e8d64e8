"""The web application where a toolkit class is served: it never imports the class."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import orjson
import pytest

from ml_backend.domain import TOOLKIT, Component, DefaultModels, ProjectKey
from ml_backend.errors import EngineUnavailable, ToolkitError
from ml_backend.service.toolkit_releasing import MODEL_VERSION, ToolkitReleasing
from ml_backend.store.components import Components
from ml_backend.store.database import Database
from ml_backend.store.releases import Releases
from ml_backend.store.toolkit_values import ToolkitValues
from ml_backend.web.dependencies import EngineCall
from ml_backend.web.toolkit_setups import PATH
from tests.fakes import FakeEngine, FakeEngineAnswer
from tests.http.conftest import Backend, MakeBackend, recorded

REQUESTED = "toolkit:model.py"
COMPONENT = Component(
    name="Mood", architecture=TOOLKIT, sha256="5" * 64, path="/m/model.py", licence="unknown"
)
TEXTS = (
    '<View><Text name="text" value="$text"/><Choices name="mood" toName="text">'
    '<Choice value="good"/></Choices></View>'
)
KEY = ProjectKey(origin="http://ls.example", project_id=1, created_at=2)


class SettingUp(FakeEngine):
    """An engine whose class sets a version when it is set up."""

    def __init__(self, values: ToolkitValues, version: str | None) -> None:
        super().__init__()
        self.values, self.version = values, version
        self.gate: asyncio.Event | None = None

    async def ask(self, path: str, **more: Any) -> Any:
        self.asked_answers[path] = FakeEngineAnswer(body=[b"{}"])
        found = await super().ask(path, **more)
        if self.gate is not None:
            await self.gate.wait()
        if self.version is not None:
            self.values.set(KEY, MODEL_VERSION, self.version)
        return found


@pytest.fixture
def values(empty_records: Any, tmp_path: Any, make_backend: MakeBackend) -> ToolkitValues:
    make_backend(started=False)  # copies the records
    return ToolkitValues(Database(f"sqlite:///{tmp_path / 'records.sqlite3'}"))


@pytest.fixture
def served(make_backend: MakeBackend, values: ToolkitValues) -> Backend:
    """An application that serves a class which its engine has imported."""
    return make_served(make_backend, values, SettingUp(values, None))


def make_served(
    make: MakeBackend, values: ToolkitValues, engine: FakeEngine, **more: Any
) -> Backend:
    """Return an application that serves a class which its engine has imported."""
    database = values._database
    releasing = ToolkitReleasing(
        requested=REQUESTED,
        revision="1",
        components=Components(database),
        values=values,
        releases=Releases(database),
    )
    releasing.components.record(REQUESTED, COMPONENT, device=TOOLKIT)
    releasing.releases.record_default(COMPONENT, revision="1")
    models = DefaultModels(model=REQUESTED)
    return make(started=False, engine=engine, toolkit=releasing, models=models, **more)


def test_health_names_the_class(served: Backend) -> None:
    answer = served.client.get("/health")
    assert answer.status_code == 200
    assert answer.json()["model_class"] == "Mood"


def test_any_label_config_is_set_up_under_a_version_of_ours(served: Backend) -> None:
    answer = served.setup(config=TEXTS)
    assert answer.status_code == 200
    version = answer.json()["model_version"]
    assert version.startswith("Mood-0.0.1-")
    assert served.setup(config=TEXTS).json()["model_version"] == version
    assert served.setup(config=TEXTS.replace("good", "bad")).json()["model_version"] != version


def test_the_version_that_the_class_sets_is_answered_the_first_time(
    make_backend: MakeBackend, values: ToolkitValues
) -> None:
    engine = SettingUp(values, "mine-1")
    served = make_served(make_backend, values, engine)
    assert served.setup(config=TEXTS).json()["model_version"].startswith("Mood-mine-1-")
    assert served.setup(config=TEXTS).json()["model_version"].startswith("Mood-mine-1-")
    [(path, _, body)] = engine.asked
    assert path == PATH
    assert json.loads(body)["project"] == str(KEY)
    assert json.loads(body)["label_config"] == TEXTS


def test_a_setup_that_takes_long_is_not_waited_for(
    make_backend: MakeBackend, values: ToolkitValues, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ml_backend.web import toolkit_setups

    monkeypatch.setattr(toolkit_setups, "PATIENCE_S", 0.05)
    monkeypatch.setattr(toolkit_setups, "_MARGIN_S", 0.0)
    engine = SettingUp(values, "late")
    engine.gate = asyncio.Event()
    served = make_served(make_backend, values, engine)
    assert served.setup(config=TEXTS).json()["model_version"].startswith("Mood-0.0.1-")
    assert served.setup(config=TEXTS).status_code == 200
    assert len(engine.asked) == 1  # not again at once


def test_a_failing_setup_of_the_class_lets_the_project_be_connected(
    make_backend: MakeBackend, values: ToolkitValues
) -> None:
    engine = SettingUp(values, None)
    engine.failures = [ToolkitError("setup() of Mood failed (KeyError: 'x'; model.py, line 3).")]
    served = make_served(make_backend, values, engine)
    assert served.setup(config=TEXTS).status_code == 200


def test_a_class_that_cannot_be_imported_is_refused_with_its_sentence(served: Backend) -> None:
    assert served.own.toolkit is not None
    served.own.toolkit.components.record_problem(REQUESTED, "model.py cannot be imported.")
    answer = served.setup(config=TEXTS)
    assert answer.status_code == 303
    assert answer.json()["message"] == "model.py cannot be imported."


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"b": 1, "a": [2]}, '{"a": [2], "b": 1}'),
        ('{"a": 1}', '{"a": 1}'),
        ("plain", "plain"),
        (None, None),
        ({}, None),
        ("", None),
    ],
)
def test_extra_params_are_kept_and_null_takes_nothing_back(
    served: Backend, values: ToolkitValues, given: Any, kept: str | None
) -> None:
    body = {
        "project": "1.2",
        "schema": TEXTS,
        "hostname": "http://ls.example",
        "access_token": "t",
    }
    for extra in (given, None):
        answer = served.client.post("/setup", json={**body, "extra_params": extra})
        assert answer.status_code == 200
        assert values.get(KEY, "extra_params") == kept


def test_extra_params_that_are_too_long_are_refused_with_a_sentence(
    make_backend: MakeBackend, values: ToolkitValues
) -> None:
    engine = SettingUp(values, None)
    served = make_served(make_backend, values, engine, max_request_bytes=10_000_000)
    body = {"project": "1.2", "schema": TEXTS, "hostname": "http://ls.example"}
    long = {**body, "extra_params": "a" * 5_000_000}
    refused = served.client.post("/setup", json=long)
    assert refused.status_code == 303
    assert "characters" in refused.json()["message"]
    assert served.client.post("/setup", json=body).status_code == 200


def test_the_class_is_asked_with_all_that_label_studio_said(served: Backend) -> None:
    served.setup(config=TEXTS)
    body = recorded("predict_interactive")["body"]
    answer = served.client.post("/predict", json={**body, "project": "1.2"})
    assert answer.status_code == 200
    [call] = served.engine.calls
    sent = body["tasks"][0]
    assert call.context == body["params"]["context"]
    assert call.tasks[0].row is not None
    assert {"id", "data"}.isdisjoint(call.tasks[0].row)
    assert {**call.tasks[0].row, "id": sent["id"], "data": call.tasks[0].data} == sent
    assert answer.json()["results"][0]["model_version"] == call.release


def test_without_a_class_no_more_is_passed_on_than_is_used(backend: Backend) -> None:
    backend.setup()
    body = recorded("predict_interactive")["body"]
    assert backend.client.post("/predict", json={**body, "project": "1.2"}).status_code == 200
    [call] = backend.engine.calls
    assert call.context is None
    assert call.tasks[0].row is None


def test_a_release_that_was_replaced_is_asked_for_under_its_new_name(
    make_backend: MakeBackend, values: ToolkitValues
) -> None:
    engine = SettingUp(values, None)
    served = make_served(make_backend, values, engine)
    first = served.setup(config=TEXTS).json()["model_version"]

    def answer(call: EngineCall) -> bytes:
        if call.release == first:  # as an engine whose class has set another version
            assert served.own.toolkit is not None
            values.set(KEY, MODEL_VERSION, "2")
            served.own.toolkit.activate(KEY, TEXTS)
            raise EngineUnavailable
        entry = {"result": [], "score": 0.5, "model_version": call.release}
        return orjson.dumps({"results": [entry] * len(call.tasks)})

    engine.answer = answer
    answered = served.predict(2, label_config=TEXTS).json()["results"]
    assert [call.release for call in engine.calls] == [first, answered[0]["model_version"]]
    assert answered[0]["model_version"].startswith("Mood-2-")


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"tasks": []}',
        b'{"tasks": [1]}',
        b'{"tasks": [{"id": "x"}]}',
        b'{"tasks": [{"id": 1, "data": {}}], "params": 5',
    ],
)
def test_bad_requests_are_refused_as_ever(served: Backend, body: bytes) -> None:
    assert served.client.post("/predict", content=body).status_code == 400
    assert served.engine.calls == []


@pytest.mark.parametrize("params", [None, 5, [], {"context": "x"}, {"context": None}])
def test_odd_params_mean_that_nobody_draws(served: Backend, params: Any) -> None:
    served.setup(config=TEXTS)
    assert served.predict(params=params).status_code == 200
    assert served.engine.calls[0].context is None
