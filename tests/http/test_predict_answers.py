"""Whatever the engine does, /predict never locks an annotator out."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_backend.errors import BackendError, EngineError, EngineUnavailable, OutOfMemory
from ml_backend.web.answers import check_answer
from ml_backend.web.dependencies import EngineBrokeOff, EngineCall
from tests.fakes import FakeEngine, honest_answer
from tests.http.conftest import CONFIG, Backend, MakeBackend

GOOD = {"result": [{"id": "a"}], "score": 0.5, "model_version": "v"}

BAD_ENTRIES: list[Any] = [
    None,
    [],
    [GOOD],
    "text",
    3,
    {"score": 0.5, "model_version": "v"},
    {**GOOD, "result": None},
    {**GOOD, "result": {}},
    {**GOOD, "result": ["x"]},
    {**GOOD, "result": [None]},
    {**GOOD, "score": None},
    {**GOOD, "score": "0.3"},
    {**GOOD, "score": "x"},
    {**GOOD, "score": True},
    {**GOOD, "score": []},
    {**GOOD, "model_version": None},
    {**GOOD, "model_version": "w"},
    {**GOOD, "model_version": 1},
    {**GOOD, "model_version": {"v": 1}},
    {"result": [], "score": 0.0},
]


@pytest.mark.parametrize("bad", BAD_ENTRIES, ids=repr)
def test_an_invalid_entry_becomes_empty_and_spares_the_others(bad: Any) -> None:
    body = orjson.dumps({"results": [GOOD, bad, {}]})

    answer = check_answer(body, count=3, version="v")

    assert orjson.loads(answer.body) == {"results": [GOOD, {}, {}]}
    assert (answer.filled, answer.replaced) == (1, 1)


@pytest.mark.parametrize("score", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_score_that_is_no_number_costs_its_own_entry_only(score: str) -> None:
    broken = orjson.dumps({**GOOD, "score": "?"}).replace(b'"?"', score.encode())
    body = b'{"results": [%s, %s]}' % (orjson.dumps(GOOD), broken)

    answer = check_answer(body, count=2, version="v")

    assert orjson.loads(answer.body) == {"results": [GOOD, {}]}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b'{"results": null}',
        b'{"results": {}}',
        b'{"results": []}',
        orjson.dumps({"results": [GOOD]}),
        orjson.dumps({"results": [GOOD] * 3}),
        b"[" * 100_000,
        b'{"results": ' + b"[" * 100_000,
    ],
    ids=lambda body: repr(body[:20]),
)
def test_an_answer_of_another_shape_becomes_one_empty_entry_per_task(body: bytes) -> None:
    answer = check_answer(body, count=2, version="v")

    assert orjson.loads(answer.body) == {"results": [{}, {}]}


def test_a_valid_answer_is_passed_on_byte_by_byte() -> None:
    body = b'{"results":   [{"result":[],"score":0,"model_version":"v"}, {}]}'

    answer = check_answer(body, count=2, version="v")

    assert answer.body is body
    assert (answer.filled, answer.replaced) == (1, 0)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["result", "score", "model_version", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(max_examples=50)
@given(entries=st.lists(json_values, max_size=4), count=st.integers(0, 4))
def test_label_studio_can_take_any_checked_answer(entries: list[Any], count: int) -> None:
    answer = check_answer(orjson.dumps({"results": entries}), count=count, version="v")

    results = orjson.loads(answer.body)["results"]
    assert len(results) == count
    for entry in results:
        assert entry == {} or (
            all(isinstance(region, dict) for region in entry["result"])
            and math.isfinite(entry["score"])
            and entry["model_version"] == "v"
        )


@pytest.mark.parametrize("error", [EngineError(), OutOfMemory()])
def test_a_failing_engine_is_asked_once_and_answers_empty(
    make_backend: MakeBackend, error: EngineError
) -> None:
    backend = make_backend(engine=FakeEngine(failures=[error]))
    backend.setup()

    answer = backend.predict(3)

    assert answer.status_code == 200
    assert answer.json() == {"results": [{}, {}, {}]}
    assert len(backend.engine.calls) == 1


def test_an_engine_that_is_starting_is_waited_for(make_backend: MakeBackend) -> None:
    backend = make_backend(engine=FakeEngine(failures=[EngineUnavailable(), EngineUnavailable()]))
    backend.setup()

    answer = backend.predict(2)

    budgets = [call.budget_s for call in backend.engine.calls]
    assert [entry["score"] for entry in answer.json()["results"]] == [0.5, 0.5]
    assert budgets == sorted(budgets, reverse=True)
    assert len(budgets) == 3


def test_an_engine_that_broke_off_is_asked_once_more(make_backend: MakeBackend) -> None:
    failures: list[BackendError] = [EngineBrokeOff(), EngineUnavailable()]
    backend = make_backend(engine=FakeEngine(failures=failures))
    backend.setup()

    answer = backend.predict(2)

    assert [entry["score"] for entry in answer.json()["results"]] == [0.5, 0.5]
    assert len(backend.engine.calls) == 3


def test_a_task_that_kills_engines_kills_two_at_most(make_backend: MakeBackend) -> None:
    backend = make_backend(engine=FakeEngine(failures=[EngineBrokeOff() for _ in range(9)]))
    backend.setup()

    answer = backend.predict(2)

    assert answer.json() == {"results": [{}, {}]}
    assert len(backend.engine.calls) == 2


def test_an_engine_that_stays_away_costs_the_budget_and_no_more(
    make_backend: MakeBackend,
) -> None:
    engine = FakeEngine(failures=[EngineUnavailable() for _ in range(1000)])
    backend = make_backend(engine=engine, predict_budget_s=0.1)
    backend.setup()

    answer = backend.predict(2)

    assert answer.status_code == 200
    assert answer.json() == {"results": [{}, {}]}


def test_a_model_that_is_not_resolved_in_time_gives_empty_entries(
    make_backend: MakeBackend,
) -> None:
    backend = make_backend(started=False, predict_budget_s=0.1)

    answer = backend.predict(2)

    assert answer.json() == {"results": [{}, {}]}
    assert backend.own.components.wanted() == ["auto"]


@pytest.mark.parametrize(
    "lie",
    [
        lambda call: orjson.dumps({"results": []}),
        lambda call: orjson.dumps({"results": [None] * len(call.tasks)}),
        lambda call: honest_answer(call).replace(b"0.5", b"NaN"),
        lambda call: honest_answer(call).replace(call.release.encode(), b"another"),
        lambda call: b"<html>",
    ],
    ids=["wrong count", "null", "NaN", "wrong version", "no JSON"],
)
def test_a_lying_engine_gives_empty_entries(make_backend: MakeBackend, lie: Any) -> None:
    backend = make_backend(engine=FakeEngine(answer=lie))
    backend.setup()

    answer = backend.predict(3)

    assert answer.status_code == 200
    assert answer.json() == {"results": [{}, {}, {}]}


def test_a_project_that_was_never_set_up_is_served_from_the_request(
    make_backend: MakeBackend,
) -> None:
    backend = make_backend(label_studio_url="http://ls.example")

    answer = backend.predict(1, project="5.6")

    call = backend.engine.calls[0]
    assert answer.json()["results"][0]["model_version"] == call.release
    assert str(call.project) == "http://ls.example#5.6"
    assert backend.own.projects.find("5.6") is not None


def test_an_unusable_label_config_gives_empty_entries(backend: Backend) -> None:
    answer = backend.predict(2, project="5.6", label_config="<View/>")

    assert answer.json() == {"results": [{}, {}]}
    assert backend.engine.calls == []


def test_the_release_is_read_once_and_its_own_config_is_sent(backend: Backend) -> None:
    version = backend.setup().json()["model_version"]

    backend.predict(2, label_config="<View><Text name='t' value='$t'/></View>")

    call: EngineCall = backend.engine.calls[0]
    assert (call.release, call.label_config) == (version, CONFIG)


def test_annotations_and_predictions_of_tasks_are_not_passed_on(backend: Backend) -> None:
    backend.setup()
    task = {"id": 1, "data": {"image": "/a.png"}, "annotations": [{"big": 1}], "predictions": [1]}

    backend.client.post("/predict", json={"tasks": [task], "project": "1.2"})

    assert backend.engine.calls[0].tasks[0].data == {"image": "/a.png"}
