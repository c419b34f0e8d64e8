"""The base class that stands in for the toolkit's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ml_backend.domain import ProjectKey
from ml_backend.errors import ImageFetchError, ToolkitError
from ml_backend.hosting import ports
from ml_backend.hosting.installing import install
from ml_backend.hosting.ports import NO_PROJECT, making_for
from tests.unit.hosting.conftest import CONFIG, PROJECT, FakeValues

OTHER = ProjectKey(origin="http://other.example", project_id=7, created_at=9)


@pytest.fixture
def base(hosting: Path) -> Any:
    """The class, by its public name."""
    install()
    from label_studio_ml.model import LabelStudioMLBase

    return LabelStudioMLBase


def test_a_new_instance_has_the_first_version_and_was_set_up(base: Any, values: FakeValues) -> None:
    class Model(base):
        def setup(self) -> None:
            self.ready = (self.project_id, self.label_config, str(self.model_version))

    with making_for(PROJECT):
        model = Model(project_id="7", label_config=CONFIG)
    assert model.ready == ("7", CONFIG, "0.0.1")
    assert values.get(PROJECT, "model_version") == "0.0.1"


def test_setup_may_set_another_version(base: Any) -> None:
    class Model(base):
        def setup(self) -> None:
            self.set("model_version", "mine-3")

    with making_for(PROJECT):
        assert Model(project_id="7", label_config=CONFIG).model_version == "mine-3"


def test_projects_of_two_label_studios_share_no_values(base: Any) -> None:
    with making_for(PROJECT):
        one = base(project_id="7", label_config=CONFIG)
    with making_for(OTHER):
        other = base(project_id="7", label_config=CONFIG)
    one.set("weights", "a.pt")  # outside: it is the instance that counts
    assert one.get("weights") == "a.pt"
    assert one.has("weights")
    assert other.get("weights") is None
    assert not other.has("weights")


def test_a_class_that_writes_its_own_constructor_has_its_project(
    base: Any, values: FakeValues
) -> None:
    class Model(base):
        def __init__(self, project_id: str | None = None, **kwargs: Any) -> None:
            self.set("early", "yes")
            super().__init__(project_id, **kwargs)

    with making_for(PROJECT):
        Model(project_id="7", label_config=CONFIG)
    assert values.get(PROJECT, "early") == "yes"
    assert values.get(NO_PROJECT, "early") is None


@pytest.mark.parametrize("value", [1, None, {"a": 1}, b"x"])
def test_only_texts_can_be_set(base: Any, value: Any) -> None:
    model = base(project_id="7", label_config=CONFIG)
    with pytest.raises(ValueError, match=r"json\.dumps"):
        model.set("key", value)


def test_the_label_config_can_be_asked_for_in_every_way(base: Any) -> None:
    model = base(project_id="7", label_config=CONFIG)
    assert model.get_first_tag_occurence("RectangleLabels", "Image") == ("box", "image", "image")
    assert model.label_interface.get_control("box").labels == ["Cell", "Debris"]
    assert model.parsed_label_config["box"]["type"] == "RectangleLabels"
    assert json.loads(model.get("parsed_label_config")) == model.parsed_label_config
    assert model.get("label_config") == model.label_config == CONFIG
    assert model.build_label_map("box", ["nucleus", "debris", "dust"]) == {
        "nucleus": "Cell",
        "debris": "Debris",
    }


def test_extra_params_are_read_as_json(base: Any, values: FakeValues) -> None:
    with making_for(PROJECT):
        model = base(project_id="7", label_config=CONFIG)
    assert model.extra_params == {}
    values.set(PROJECT, "extra_params", '{"threshold": 0.5}')
    assert model.extra_params == {"threshold": 0.5}
    model.set_extra_params({"threshold": 0.6})
    assert model.extra_params == {"threshold": 0.6}


def test_bumping_raises_the_middle_number(base: Any) -> None:
    model = base(project_id="7", label_config=CONFIG)
    model.set("model_version", "1.2.3")
    assert model.bump_model_version() == "1.3.0"
    assert model.model_version == "1.3.0"
    model.set("model_version", "mine")
    with pytest.raises(ValueError, match="is not like"):
        model.bump_model_version()


def test_files_come_through_our_fetcher(base: Any, hosting: Path) -> None:
    with making_for(PROJECT):
        model = base(project_id="7", label_config=CONFIG)
    path = model.get_local_path(
        "http://ls.example/a.png", ls_host="http://evil", ls_access_token="t", task_id=3
    )
    assert path == str(hosting / "7-3-a.png")
    with pytest.raises(ImageFetchError):
        model.get_local_path("http://ls.example/missing.png")


def test_task_data_is_preloaded(base: Any) -> None:
    model = base(project_id="7", label_config=CONFIG)
    task = {"id": 3}
    data = {"text": "https://ls.example/a.txt", "more": ["plain", "/data/upload/1/b.txt"], "n": 5}
    assert model.preload_task_data(task, data) == {
        "text": "https://ls.example/a.txt",
        "more": ["plain", "/data/upload/1/b.txt"],
        "n": 5,
    }
    path = model.preload_task_data(task, "https://ls.example/a.txt", read_file=False)
    assert Path(path).read_text() == "https://ls.example/a.txt"


def test_only_train_events_are_processed(base: Any) -> None:
    class Model(base):
        def fit(self, event: str, data: Any, **more: Any) -> Any:
            return (event, data, more)

    model = Model(project_id="7", label_config=CONFIG)
    assert model.process_event("PROJECT_UPDATED", {}, "j", {}) is None
    assert model.process_event("START_TRAINING", {"a": 1}, "j", {"b": 2}) == (
        "START_TRAINING",
        {"a": 1},
        {"job_id": "j", "b": 2},
    )


def test_decorated_functions_stand_in_for_methods(base: Any) -> None:
    from label_studio_ml.model import predict_fn, update_fn

    @predict_fn
    def predict(tasks: Any, context: Any, helper: Any, **_: Any) -> Any:
        return [helper.model_version for _ in tasks]

    @update_fn
    def update(event: str, data: Any, helper: Any, **_: Any) -> Any:
        helper.set("model_version", event)

    model = base(project_id="7", label_config=CONFIG)
    assert model.predict([{}, {}]) == ["0.0.1", "0.0.1"]
    model.fit("START_TRAINING", {})
    assert model.model_version == "START_TRAINING"


def test_without_ports_the_reason_is_said(base: Any) -> None:
    ports._plugged.clear()
    with pytest.raises(ToolkitError, match="serve --toolkit"):
        base(project_id="7", label_config=CONFIG)


def test_the_response_gives_its_version_to_those_without(hosting: Path) -> None:
    install()
    from label_studio_ml.response import ModelResponse
    from label_studio_sdk.label_interface.objects import PredictionValue

    mine = PredictionValue(result=[], score=0.5, model_version="own")
    response = ModelResponse(predictions=[PredictionValue(result=[]), [mine]])
    assert not response.has_model_version()
    response.set_version("v2")
    assert response.predictions[0].model_version == "v2"
    assert response.predictions[1][0].model_version == "own"


def test_the_helpers_do_what_their_names_say(hosting: Path, monkeypatch: Any) -> None:
    install()
    from label_studio_ml import utils
    from PIL import Image

    turned = Image.new("L", (20, 10))
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    turned.save(hosting / "turned.jpg", exif=exif)
    assert utils.get_image_size(str(hosting / "turned.jpg")) == (10, 20)
    parsed = {
        "c": {
            "type": "Choices",
            "to_name": ["t"],
            "inputs": [{"type": "Text", "value": "text"}],
            "labels": ["a"],
        }
    }
    assert utils.get_single_tag_keys(parsed, "Choices", "Text") == ("c", "t", "text", ["a"])
    assert utils.get_first_tag_keys(parsed, "Choices", "Text")[0] == "c"
    assert utils.get_first_tag_keys(parsed, "Choices", "Image") == (None, None)
    for wrong in (("Labels", "Text"), ("Choices", "Image")):
        with pytest.raises(AssertionError):
            utils.get_single_tag_keys(parsed, *wrong)
    with pytest.raises(AssertionError):
        utils.get_single_tag_keys({}, "Choices", "Text")
    assert utils.is_skipped({"annotations": [{"was_cancelled": True}]})
    assert not utils.is_skipped({"annotations": [{}, {}]})
    chosen = {"annotations": [{"result": [{"value": {"choices": ["x"]}}]}]}
    assert utils.get_choice(chosen) == "x"
    assert utils.match_labels("cels\ndebri", ["Debris", "cells"]) == ["cells", "Debris"]
    monkeypatch.setenv("LABEL_STUDIO_HOSTNAME", "http://ls")
    assert utils.get_env("HOSTNAME") == "http://ls"
    cache = utils.InMemoryLRUDictCache(capacity=2)
    for key in (1, 2, 3):
        cache.put(key, key)
    assert (cache.get(1), cache.get(2), cache.get(3), 1 in cache) == (None, 2, 3, False)
    with making_for(PROJECT):
        assert utils.get_image_local_path("http://x/y.png", task_id=2).endswith("7-2-y.png")
