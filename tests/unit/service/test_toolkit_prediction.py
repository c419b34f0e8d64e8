"""Predictions of a toolkit class: one by one, under the version that made them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_backend.domain import LabelConfig, LabelStudioAccess, Release, Task
from ml_backend.errors import EngineUnavailable, ToolkitError
from ml_backend.service.predictions import PredictionRequest, PredictionService
from ml_backend.service.task_prediction import input_hash
from ml_backend.service.toolkit_prediction import ToolkitPredictions, ToolkitPredictor
from ml_backend.service.toolkit_releasing import MODEL_VERSION
from ml_backend.store.deliveries import Deliveries
from ml_backend.store.open_requests import OpenRequests
from ml_backend.store.predictions import KeptPredictions
from ml_backend.store.toolkit_values import ToolkitValues
from tests.unit.service.toolkit_bench import KEY, ToolkitBench, mood, open_toolkit_bench

NOTHING = LabelConfig(controls=())


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[ToolkitBench]:
    with open_toolkit_bench(tmp_path) as opened:
        predictor = ToolkitPredictor(opened.instances, opened.releasing)
        with PredictionService(
            predictor,
            KeptPredictions(opened.database),
            Deliveries(opened.database),
            OpenRequests(opened.database),
            threads=2,
        ) as service:
            opened.more["predictions"] = ToolkitPredictions(
                service, predictor, opened.instances, opened.releasing
            )
            yield opened


def predictions(bench: ToolkitBench) -> ToolkitPredictions:
    found = bench.more["predictions"]
    assert isinstance(found, ToolkitPredictions)
    return found


def request(
    release: Release, *texts: str, context: Any = None, budget_s: float = 20.0
) -> PredictionRequest:
    return PredictionRequest(
        project=KEY,
        release=release,
        config=NOTHING,
        tasks=[
            Task(id=number, data={"text": text}, row={"annotations": [], "meta": {"a": 1}})
            for number, text in enumerate(texts)
        ],
        access=LabelStudioAccess(origin=KEY.origin),
        budget_s=budget_s,
        context=context,
    )


def test_each_task_is_asked_for_alone_and_kept(bench: ToolkitBench) -> None:
    release = bench.introduce()
    for _ in range(2):
        first, second = predictions(bench).predict(request(release, "a", "b"))
        assert first is not None
        assert second is not None
        assert first.result == [mood("good")]
        assert (first.score, first.model_version) == (0.5, release.version)
    asked = sorted(tasks[0]["data"]["text"] for tasks, _ in bench.model.calls)
    assert asked == ["a", "b"]
    [task], context = bench.model.calls[0]
    assert task["meta"] == {"a": 1}
    assert task["annotations"] == task["predictions"] == []
    assert context is None


def test_a_class_may_change_its_copy_of_a_task(bench: ToolkitBench) -> None:
    def predict(self: Any, tasks: Any, context: Any = None, **_: Any) -> Any:
        tasks[0]["data"]["text"] = "changed"
        tasks[0]["meta"]["a"] = 2
        return [{"result": []}]

    bench.model.predict = predict  # type: ignore[method-assign]
    release = bench.introduce()
    asked = request(release, "a")
    [found] = predictions(bench).predict(asked)
    assert found is not None
    assert asked.tasks[0].data == {"text": "a"}
    assert asked.tasks[0].row == {"annotations": [], "meta": {"a": 1}}


@pytest.mark.parametrize(
    "answer", [None, [], [{}], [None], "x", [{"result": None}], [{"result": [{}]}], [1, 2]]
)
def test_a_bad_answer_harms_only_its_task(bench: ToolkitBench, answer: Any) -> None:
    good = bench.model.predict

    def predict(self: Any, tasks: Any, context: Any = None, **more: Any) -> Any:
        if tasks[0]["data"]["text"] == "bad":
            return answer
        return good(self, tasks, context, **more)

    bench.model.predict = predict  # type: ignore[method-assign]
    release = bench.introduce()
    bad, fine = predictions(bench).predict(request(release, "bad", "good"))
    assert bad is None
    assert fine is not None


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1), MemoryError()])
def test_a_raising_predict_harms_only_its_task(bench: ToolkitBench, error: Any) -> None:
    def predict(self: Any, tasks: Any, context: Any = None, **_: Any) -> Any:
        if tasks[0]["data"]["text"] == "bad":
            raise error
        return [{"result": []}]

    bench.model.predict = predict  # type: ignore[method-assign]
    release = bench.introduce()
    bad, fine = predictions(bench).predict(request(release, "bad", "good"))
    assert bad is None
    assert fine is not None


def test_what_a_person_draws_is_answered_in_one_call_and_not_kept(bench: ToolkitBench) -> None:
    release = bench.introduce()
    drawn = {"result": [{"type": "keypointlabels"}]}
    for _ in range(2):
        [found] = predictions(bench).predict(request(release, "a", context=drawn))
        assert found is not None
    assert [context for _, context in bench.model.calls] == [drawn, drawn]
    kept = KeptPredictions(bench.database)
    plain = request(release, "a")
    assert kept.get_many([plain.key(plain.tasks[0])]) == {}
    predictions(bench).predict(plain)
    assert len(kept.get_many([plain.key(plain.tasks[0])])) == 1


def test_a_failing_interactive_call_is_an_empty_answer(bench: ToolkitBench) -> None:
    def predict(self: Any, tasks: Any, context: Any = None, **_: Any) -> Any:
        raise ValueError("no")

    bench.model.predict = predict  # type: ignore[method-assign]
    release = bench.introduce()
    assert predictions(bench).predict(request(release, "a", context={"result": []})) == [None]


def test_a_version_that_setup_sets_is_served_before_anything_is_predicted(
    bench: ToolkitBench,
) -> None:
    def setup(self: Any) -> None:
        self.set(MODEL_VERSION, "of-setup")

    bench.model.setup = setup  # type: ignore[method-assign]
    provisional = bench.introduce()
    with pytest.raises(EngineUnavailable):  # the web process asks again, for what is served now
        predictions(bench).predict(request(provisional, "a"))
    served = bench.releasing.releases.active(KEY)
    assert served is not None
    assert served.version.startswith("Mood-of-setup-")
    [found] = predictions(bench).predict(request(served, "a"))
    assert found is not None
    assert found.model_version == served.version


def test_setting_up_tells_the_version(bench: ToolkitBench) -> None:
    release = bench.introduce()
    found = predictions(bench).set_up(KEY, release.label_config, budget_s=20)
    assert found == release.version


def test_nothing_is_predicted_under_a_version_that_has_gone(bench: ToolkitBench) -> None:
    release = bench.introduce()
    predictor = ToolkitPredictor(bench.instances, bench.releasing)
    ToolkitValues(bench.database).set(KEY, MODEL_VERSION, "of-fit")
    with pytest.raises(ToolkitError, match="of-fit"):
        predictor.ask([Task(id=1, data={})], release, context=None)
    assert bench.model.calls == []


def test_a_slow_setup_costs_no_more_than_the_budget(bench: ToolkitBench) -> None:
    gate = threading.Event()
    bench.model.setup = lambda self: assert_open(gate)  # type: ignore[method-assign]
    release = bench.introduce()
    assert predictions(bench).set_up(KEY, release.label_config, budget_s=0.05) is None
    assert predictions(bench).predict(request(release, "a", budget_s=0.1)) == [None]
    gate.set()
    [found] = predictions(bench).predict(request(release, "a"))
    assert found is not None


def assert_open(gate: threading.Event) -> None:
    """Wait for a test."""
    assert gate.wait(20)


def test_a_setup_that_fails_says_so_once_for_the_request(bench: ToolkitBench) -> None:
    def setup(self: Any) -> None:
        raise FileNotFoundError("weights.pt")

    bench.model.setup = setup  # type: ignore[method-assign]
    release = bench.introduce()
    with pytest.raises(ToolkitError, match=r"FileNotFoundError: weights.pt; test_toolkit_pred"):
        predictions(bench).predict(request(release, "a", "b"))


def test_a_release_of_no_project_cannot_be_asked() -> None:
    from ml_backend.service.toolkit_prediction import project_of

    with pytest.raises(ToolkitError, match="names no project"):
        project_of(Release(version="v", components={}, label_config=""))


def test_the_input_is_all_but_what_was_predicted_before() -> None:
    def hashed(row: Any, data: Any = None) -> str:
        return input_hash(Task(id=1, data=data or {"a": 1}, row=row), NOTHING)

    plain = hashed({"annotations": []})
    assert hashed({"annotations": [], "predictions": [1], "total_predictions": 1}) == plain
    assert hashed({"annotations": [{"id": 1}]}) != plain
    assert hashed({"annotations": []}, {"a": 2}) != plain
    assert input_hash(Task(id=1, data={"a": 1}), NOTHING) != plain


def test_a_setup_that_takes_back_what_fit_has_set_is_served_as_it_is(bench: ToolkitBench) -> None:
    def setup(self: Any) -> None:
        self.set(MODEL_VERSION, "always")

    bench.model.setup = setup  # type: ignore[method-assign]
    bench.introduce()
    assert predictions(bench).set_up(KEY, bench.introduce().label_config, budget_s=20)
    ToolkitValues(bench.database).set(KEY, MODEL_VERSION, "of-fit")
    fitted = bench.introduce()
    assert fitted.version.startswith("Mood-of-fit-")
    with pytest.raises(EngineUnavailable):
        predictions(bench).predict(request(fitted, "a"))
    served = bench.releasing.releases.active(KEY)
    assert served is not None
    assert served.version.startswith("Mood-always-")
    [found] = predictions(bench).predict(request(served, "a"))
    assert found is not None
