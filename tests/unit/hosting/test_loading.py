"""Which class of a file is served, and what is said when none can be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ml_backend.errors import ModelError, ModelNotFound
from ml_backend.hosting.loading import load_class

BASE = "from label_studio_ml.model import LabelStudioMLBase\n"


def write(folder: Path, text: str, name: str = "model.py") -> str:
    """Return the path of a file with this text."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return str(folder / name)


def test_the_one_class_of_a_file_is_found(hosting: Path, tmp_path: Path) -> None:
    reference = write(tmp_path / "one", f"{BASE}class NewModel(LabelStudioMLBase):\n    pass\n")
    found = load_class(reference)
    assert (found.name, found.path) == ("NewModel", Path(reference).resolve())
    assert "START_TRAINING" in found.train_events


def test_what_is_built_upon_is_not_what_is_meant(hosting: Path, tmp_path: Path) -> None:
    text = (
        f"{BASE}class Common(LabelStudioMLBase):\n    pass\nclass Mine(Common):\n"
        "    TRAIN_EVENTS = ('PROJECT_UPDATED',)\n"
    )
    found = load_class(write(tmp_path / "two", text))
    assert (found.name, found.train_events) == ("Mine", ("PROJECT_UPDATED",))


def test_of_several_one_must_be_named(hosting: Path, tmp_path: Path) -> None:
    text = f"{BASE}class A(LabelStudioMLBase):\n    pass\nclass B(LabelStudioMLBase):\n    pass\n"
    reference = write(tmp_path / "several", text)
    with pytest.raises(ModelError, match=r"several classes .*\(A, B\)"):
        load_class(reference)
    assert load_class(f"{reference}:B").name == "B"
    with pytest.raises(ModelNotFound, match="no class 'C'"):
        load_class(f"{reference}:C")
    with pytest.raises(ModelNotFound, match="no class 'BASE'"):
        load_class(f"{reference}:BASE")


def test_a_class_that_is_imported_counts_where_the_file_has_none(
    hosting: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "imports"
    write(folder, f"{BASE}class There(LabelStudioMLBase):\n    pass\n", "there_of_imports.py")
    reference = write(folder, "from there_of_imports import There\n", "model_of_imports.py")
    assert load_class(reference).name == "There"


def test_decorated_functions_make_a_model_without_a_class(hosting: Path, tmp_path: Path) -> None:
    text = (
        "from label_studio_ml.model import predict_fn\n@predict_fn\n"
        "def predict(tasks, context, helper, **kwargs):\n    return []\n"
    )
    assert load_class(write(tmp_path / "functions", text, "decorated.py")).name == "decorated"


def test_the_hash_is_of_the_file_and_of_what_it_imports_beside_it(
    hosting: Path, tmp_path: Path
) -> None:
    hashes = set()
    for number, (own, helper) in enumerate([("1", "1"), ("2", "1"), ("1", "2"), ("1", "1")]):
        folder = tmp_path / f"hash{number}"
        write(folder, f"VALUE = {helper}\n", "helper_of_hash.py")
        write(folder, "NEVER_IMPORTED = 1\n", f"other{number}.py")
        text = (
            f"import helper_of_hash\n{BASE}class NewModel(LabelStudioMLBase):\n    VALUE = {own}\n"
        )
        hashes.add(load_class(write(folder, text, "model_of_hash.py")).sha256)
        for name in ("helper_of_hash", "model_of_hash"):
            del sys.modules[name]
        sys.path.remove(str(folder))
    assert len(hashes) == 3


def test_a_module_of_the_same_name_is_left_alone(hosting: Path, tmp_path: Path) -> None:
    import json

    text = f"{BASE}class NewModel(LabelStudioMLBase):\n    pass\n"
    found = load_class(write(tmp_path / "same", text, "json.py"))
    assert sys.modules["json"] is json
    assert found.type.__module__ == "toolkit_model_json"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import nobody_has_this\n", "No module named 'nobody_has_this'; model.py, line 1"),
        ("def broken(:\n", "SyntaxError"),
        ("raise ValueError('not today')\n", "ValueError: not today; model.py, line 1"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3; model.py, line 2"),
    ],
)
def test_a_file_that_cannot_be_imported_says_why(
    hosting: Path, tmp_path: Path, text: str, reason: str
) -> None:
    with pytest.raises(ModelError, match="cannot be imported") as caught:
        load_class(write(tmp_path / "bad", text))
    assert reason in caught.value.message
    assert "model" not in sys.modules


@pytest.mark.parametrize("reference", ["", "nowhere.py", "nowhere.py:Class", "/tmp", ":", "a:b"])
def test_a_path_that_leads_nowhere_says_so(hosting: Path, reference: str) -> None:
    with pytest.raises(ModelNotFound, match="TOOLKIT_MODEL"):
        load_class(reference)


def test_a_file_without_any_class_says_so(hosting: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no class that inherits"):
        load_class(write(tmp_path / "empty", "x = 1\n"))
