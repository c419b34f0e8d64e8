"""Predictions without records answer as the engine does, under the same version."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from ml_backend.domain import POST_PROCESSING_REVISION, Component, DefaultModels, LabelStudioAccess
from ml_backend.errors import BadRequest, ConfigError, ModelNotFound
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.service.releasing import Releasing
from ml_backend.service.task_prediction import TaskPredictor
from ml_backend.service.unrecorded import UnrecordedPredictions
from ml_backend.store.components import Components
from ml_backend.store.database import Database
from ml_backend.store.releases import Releases
from ml_backend.store.versions import Versions
from tests.unit.service.conftest import (
    COMPONENT,
    CONFIG,
    PROJECT,
    FakeClassifier,
    FakeFetcher,
    FakeSegmenter,
    decode_square,
)


@pytest.fixture
def segmenter() -> FakeSegmenter:
    found = FakeSegmenter()
    found.gate.set()
    return found


def make(segmenter: FakeSegmenter, **more: Any) -> UnrecordedPredictions:
    """Return predictions by the fake segmenter."""

    def resolve(name: str) -> Component:
        if name != "auto":
            raise ModelNotFound(f"There is no model {name!r}.")
        return COMPONENT

    given: dict[str, Any] = {
        "parse": parse_label_config,
        "models": DefaultModels(),
        "revision": POST_PROCESSING_REVISION,
        "access": lambda hostname, token: LabelStudioAccess(origin=hostname, token=token),
        "threads": 2,
        "budget_s": 20.0,
        **more,
    }
    predictor = TaskPredictor(
        fetcher=FakeFetcher(),
        decode=decode_square,
        segmenter=segmenter,
        classifier=FakeClassifier(),
    )
    return UnrecordedPredictions(predictor, resolve, **given)


def ask(predictions: UnrecordedPredictions, *images: str, config: str = CONFIG) -> list[Any]:
    rows = [{"id": number, "data": {"image": url}} for number, url in enumerate(images)]
    return predictions.predict(rows, config, hostname="http://ls", access_token="t")


def test_its_version_is_the_one_that_our_other_processes_make(
    segmenter: FakeSegmenter, tmp_path: Path
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    database.migrate()
    components = Components(database)
    components.record("auto", COMPONENT, device="cpu")
    releasing = Releasing(
        models=DefaultModels(),
        revision=POST_PROCESSING_REVISION,
        parse=parse_label_config,
        components=components,
        versions=Versions(database),
        releases=Releases(database),
    )
    served = releasing.activate(PROJECT, CONFIG).release.version
    database.close()
    assert make(segmenter).release(CONFIG).version == served


def test_every_task_has_an_entry_in_order(segmenter: FakeSegmenter) -> None:
    predictions = make(segmenter)
    good, gone, again = ask(predictions, "a.png", "missing.png", "b.png")
    version = predictions.release(CONFIG).version
    assert gone == {}
    for entry in (good, again):
        assert entry["model_version"] == version
        assert len(entry["result"]) == 1
        assert entry["score"] == 0.75


def test_what_takes_too_long_is_left_out(segmenter: FakeSegmenter) -> None:
    segmenter.gate.clear()
    predictions = make(segmenter, budget_s=0.2, threads=1)
    assert ask(predictions, "a.png", "b.png") == [{}, {}]
    segmenter.gate.set()


def test_a_config_or_model_that_cannot_be_served_says_so(segmenter: FakeSegmenter) -> None:
    predictions = make(segmenter)
    with pytest.raises(ConfigError):
        predictions.release("<View/>")
    with pytest.raises(ModelNotFound):
        predictions.release(CONFIG.replace('toName="image"', 'toName="image" model_name="other"'))


@pytest.mark.parametrize("row", [{}, {"id": "x"}, {"id": None, "data": {}}])
def test_a_task_without_a_number_is_refused(segmenter: FakeSegmenter, row: Any) -> None:
    with pytest.raises(BadRequest):
        make(segmenter).predict([row], CONFIG, hostname=None, access_token=None)


def test_a_bug_in_one_task_spoils_no_other(segmenter: FakeSegmenter) -> None:
    lock = threading.Lock()

    class Failing:
        first = True

        def predict(self, task: Any, **more: Any) -> Any:
            with lock:
                was_first, self.first = self.first, False
            if was_first:
                raise ZeroDivisionError
            return original.predict(task, **more)

    predictions = make(segmenter, threads=1)
    original = predictions._predictor
    predictions._predictor = Failing()
    bad, good = ask(predictions, "a.png", "b.png")
    assert bad == {}
    assert good["result"]
