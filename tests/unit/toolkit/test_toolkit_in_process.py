"""The toolkit's process loads our networks behind its requests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from ml_backend.bootstrap import unrecorded
from ml_backend.errors import ConfigError, ModelError
from ml_backend.toolkit import in_process
from ml_backend.toolkit.in_process import InProcess

BODY = {"tasks": [{"id": 1}, {"id": 2}], "label_config": "<View/>", "hostname": "http://ls"}


class FakePredictions:
    """Answers without any network."""

    failure: Exception | None = None

    def release(self, label_config: str) -> Any:
        if self.failure is not None:
            raise self.failure
        return SimpleNamespace(version=f"v of {label_config}")

    def predict(self, rows: Any, label_config: str, **who: Any) -> Any:
        if self.failure is not None:
            raise self.failure
        return [{"row": row["id"], "config": label_config, **who} for row in rows]


@pytest.fixture
def gate() -> threading.Event:
    """What loading waits for."""
    opened = threading.Event()
    opened.set()
    return opened


@pytest.fixture
def predictions(monkeypatch: pytest.MonkeyPatch, gate: threading.Event) -> FakePredictions:
    """What is loaded."""
    fake = FakePredictions()

    @contextmanager
    def opened() -> Iterator[FakePredictions]:
        assert gate.wait(20)
        yield fake

    monkeypatch.setattr(unrecorded, "open_unrecorded", opened)
    return fake


def test_a_setup_is_answered_with_the_version(predictions: FakePredictions) -> None:
    assert InProcess().set_up({"schema": "<View/>"}) == "v of <View/>"


def test_a_setup_while_networks_are_loaded_asks_for_another_try(
    predictions: FakePredictions, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_process, "SETUP_PATIENCE_S", 0.05)
    gate.clear()
    serving = InProcess()
    with pytest.raises(RuntimeError, match="try again"):
        serving.set_up({"schema": "x"})
    gate.set()
    assert serving.predict(BODY)[1] == {
        "row": 2,
        "config": "<View/>",
        "hostname": "http://ls",
        "access_token": None,
    }


def test_a_refusal_keeps_its_sentence(predictions: FakePredictions) -> None:
    predictions.failure = ConfigError("No control.")
    serving = InProcess()
    with pytest.raises(RuntimeError, match=r"^No control\.$"):
        serving.set_up({})
    assert serving.predict(BODY) == [{}, {}]


def test_networks_that_cannot_be_loaded_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def broken() -> Iterator[None]:
        raise ModelError("There is no such model.")
        yield

    monkeypatch.setattr(unrecorded, "open_unrecorded", broken)
    serving = InProcess()
    with pytest.raises(RuntimeError, match="no such model"):
        serving.set_up({})
    assert serving.predict(BODY) == [{}, {}]


def test_nothing_is_learned_here(predictions: FakePredictions) -> None:
    told = InProcess().tell({"action": "START_TRAINING"}, {})
    assert told["status"] == "ignored"
    assert "ML_BACKEND_URL" in told["message"]
