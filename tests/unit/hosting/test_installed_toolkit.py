"""Which `label_studio_ml` a class gets: an installed 2.x, or ours."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from ml_backend.hosting.installing import STAND_INS, install, is_second_generation_installed
from ml_backend.hosting.loading import load_class
from ml_backend.hosting.ports import making_for
from tests.unit.hosting.conftest import CONFIG, PROJECT, FakeValues

SECOND_GENERATION = Path(__file__).resolve().parents[2] / "second_generation"
MODEL = """
from label_studio_ml.model import LabelStudioMLBase
from label_studio_ml.response import ModelResponse

class NewModel(LabelStudioMLBase):
    def setup(self):
        self.set("model_version", "2x-1")

    def predict(self, tasks, context=None, **kwargs):
        path = self.get_local_path(tasks[0]["data"]["image"], task_id=tasks[0]["id"])
        return ModelResponse(predictions=[{"result": [], "score": 0.5, "path": path}])
"""


def test_without_the_toolkit_our_modules_stand_in(hosting: Path) -> None:
    base = install()
    assert base.__module__ == "label_studio_ml.model"
    assert list(sys.modules["label_studio_ml"].__path__) == [str(STAND_INS)]
    assert install() is base
    assert not is_second_generation_installed()


def test_an_installed_second_generation_is_used_with_our_ways_out(
    hosting: Path, values: FakeValues, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SECOND_GENERATION))
    (tmp_path / "model_of_2x.py").write_text(MODEL)
    found = load_class(str(tmp_path / "model_of_2x.py"))
    assert found.type.__mro__[1].__module__ == "label_studio_ml.model"
    assert Path(sys.modules["label_studio_ml"].__file__ or "").is_relative_to(SECOND_GENERATION)
    with making_for(PROJECT):
        model = found.type(project_id="7", label_config=CONFIG)
    assert values.get(PROJECT, "model_version") == "2x-1"
    answer = model.predict([{"id": 3, "data": {"image": "http://ls/a.png"}}])
    assert answer.predictions[0]["path"] == str(hosting / "7-3-a.png")


def test_the_first_generation_is_passed_over(
    hosting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "label_studio_ml"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "model.py").write_text("class LabelStudioMLBase:\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not is_second_generation_installed()
    assert hasattr(install(), "use_label_config")


def test_a_first_generation_that_is_loaded_already_is_passed_over(hosting: Path) -> None:
    loaded = ModuleType("label_studio_ml")
    loaded.__path__ = []
    sys.modules["label_studio_ml"] = loaded
    sys.modules["label_studio_ml.model"] = ModuleType("label_studio_ml.model")
    assert hasattr(install(), "use_label_config")
