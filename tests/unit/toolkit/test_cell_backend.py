"""The class that the toolkit serves, without a toolkit and with a stand-in for its 2.x.

The real 1.0.9 serves it in the end-to-end tests.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ml_backend.labelstudio.webhooks import ORIGIN_HEADER, SECRET_HEADER
from ml_backend.toolkit import cell_backend, incoming, serving
from ml_backend.toolkit.incoming import PASSED_ON, Incoming

ROOT = Path(__file__).resolve().parents[3]
SECOND_GENERATION = ROOT / "tests" / "second_generation"


@dataclass
class FakeServing:
    """Notes what it is asked."""

    setups: list[dict[str, Any]] = field(default_factory=list)
    predicts: list[dict[str, Any]] = field(default_factory=list)
    events: list[tuple[dict[str, Any], dict[str, str]]] = field(default_factory=list)

    def set_up(self, body: Mapping[str, Any]) -> str:
        self.setups.append(dict(body))
        return f"v{len(self.setups)}"

    def predict(self, body: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        self.predicts.append(dict(body))
        return [{} for _ in body["tasks"]]

    def tell(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> Mapping[str, Any]:
        self.events.append((dict(body), dict(headers)))
        return {"status": "recorded"}


@pytest.fixture
def asked() -> Iterator[FakeServing]:
    """Stand between the class and what serves it."""
    before = list(serving._opened)
    fake = FakeServing()
    serving._opened[:] = [fake]
    yield fake
    serving._opened[:] = before


@pytest.fixture
def of_2x(monkeypatch: pytest.MonkeyPatch, asked: FakeServing) -> Iterator[Any]:
    """The class, imported beside the stand-in for the toolkit's 2.x."""
    monkeypatch.syspath_prepend(str(SECOND_GENERATION))
    yield importlib.reload(cell_backend)
    for name in [name for name in sys.modules if name.startswith("label_studio_ml")]:
        del sys.modules[name]
    monkeypatch.undo()
    importlib.reload(cell_backend)


def in_request(monkeypatch: pytest.MonkeyPatch, request: Incoming | None) -> None:
    """Have the toolkit answer this request."""
    monkeypatch.setattr(cell_backend, "incoming", lambda: request)


def test_it_works_without_any_toolkit(asked: FakeServing) -> None:
    model = cell_backend.CellBackend(label_config="<View/>", hostname="http://ls")
    tasks = [{"id": 1, "data": {}}]
    assert model.predict(tasks, context={"result": []}, login="l") == [{}]
    [body] = asked.predicts
    assert body["tasks"] == tasks
    assert body["label_config"] == "<View/>"
    assert body["hostname"] == "http://ls"
    assert body["params"] == {"login": "l", "context": {"result": []}}
    assert model.served_version() == model.served_version() == "v1"
    assert asked.setups[0]["schema"] == "<View/>"


def test_the_request_in_hand_counts_more_than_what_the_toolkit_remembers(
    asked: FakeServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = cell_backend.CellBackend(label_config="<View>of the project set up last</View>")
    body = {"tasks": [{"id": 5}], "project": "2.3", "label_config": "<View/>", "params": {}}
    in_request(monkeypatch, Incoming("/predict", body))
    model.predict([{"id": 5}], context=None)
    assert {**asked.predicts[0], **body} == asked.predicts[0]
    in_request(monkeypatch, Incoming("/setup", {"project": "2.3", "schema": "<View/>"}))
    model.served_version()
    assert asked.setups[0]["project"] == "2.3"


def test_a_predict_request_without_a_label_config_gets_the_remembered_one(
    asked: FakeServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = cell_backend.CellBackend(label_config="<View/>")
    in_request(monkeypatch, Incoming("/predict", {"tasks": [], "label_config": None}))
    model.predict([])
    assert asked.predicts[0]["label_config"] == "<View/>"


def test_events_are_passed_on_from_both_generations(
    asked: FakeServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = cell_backend.CellBackend()
    data = {"project": {"id": 1}}
    assert model.fit((), event="START_TRAINING", data=data, job_id="1", workdir="/w") == {
        "status": "recorded"
    }
    in_request(monkeypatch, Incoming("/webhook", {}, {"X-Backend-Secret": "hush"}))
    model.fit("ANNOTATION_CREATED", data)
    assert asked.events == [
        ({"action": "START_TRAINING", **data}, {}),
        ({"action": "ANNOTATION_CREATED", **data}, {"X-Backend-Secret": "hush"}),
    ]


@pytest.mark.parametrize("given", [(), ([{"id": 1}], "/workdir"), ([],)])
def test_the_old_training_call_does_nothing(asked: FakeServing, given: tuple[Any, ...]) -> None:
    assert cell_backend.CellBackend().fit(*given) == {}
    assert asked.events == []


def test_a_model_of_2x_names_the_served_version_when_it_is_set_up(
    of_2x: Any, asked: FakeServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert of_2x.IS_SECOND_GENERATION
    in_request(monkeypatch, Incoming("/setup", {"project": "3.4", "schema": "<View/>"}))
    model = of_2x.CellBackend(project_id="3", label_config="<View/>")
    assert model.model_version == "v1"
    assert asked.setups[0]["project"] == "3.4"
    in_request(monkeypatch, Incoming("/predict", {"tasks": [{"id": 1}], "project": "3.4"}))
    model = of_2x.CellBackend(project_id="3", label_config="<View/>")
    assert model.predict([{"id": 1}], context={}) == [{}]
    assert model.model_version == "v1"
    assert len(asked.setups) == 1


def test_where_predictions_come_from_is_decided_by_one_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ml_backend.toolkit.forwarding import Forwarding

    before = list(serving._opened)
    serving._opened.clear()
    monkeypatch.setenv("ML_BACKEND_URL", "http://localhost:9090")
    try:
        found = serving.serving()
        assert isinstance(found, Forwarding)
        assert serving.serving() is found
    finally:
        serving._opened[:] = before


def test_the_headers_that_are_passed_on_are_those_of_our_webhooks() -> None:
    assert set(PASSED_ON) == {SECRET_HEADER, ORIGIN_HEADER}


def test_outside_of_flask_no_request_is_in_hand() -> None:
    assert incoming.incoming() is None


def test_importing_it_needs_the_standard_library_only() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from ml_backend.toolkit import CellBackend\n"
        "from ml_backend.toolkit.forwarding import Forwarding\n"
        "assert not any('site-packages' in (getattr(m, '__file__', None) or '')"
        " for m in list(sys.modules.values()))\n"
        "print(CellBackend(label_config='x').label_config)"
    )
    shown = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"]},
    )
    assert shown.stdout.strip() == "x"
