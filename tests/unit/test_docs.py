"""The documentation says what the program does: nothing missing, nothing that is not there."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import pytest
import yaml

from ml_backend.bootstrap.web import build_web_app
from ml_backend.cli import app
from ml_backend.engines.catalogue import model_names
from ml_backend.errors import BackendError
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.labelstudio.options import CHOICES_OPTIONS, CLUSTER_OPTIONS, OPTIONS
from ml_backend.settings import Settings
from ml_backend.web.app import STATUS_BY_CODE
from tests.docs_commands import (
    DOCUMENTS,
    ROOT,
    SETTINGS,
    Fence,
    fences,
)
from tools.write_reference import FOLDER, PAGES

MARKDOWN = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "label_configs/**/*.md", "tests/**/*.md", "tools/*.md")
    for path in ROOT.glob(pattern)
)
LANGUAGES = {"bash", "xml", "json", "yaml", "ini", "nginx", "python", "text"}
LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)\s]+)\)")
ROUTE_PAGES = ("protocol.md", "api.md")
ALL_FENCES = [fence for document in DOCUMENTS for fence in fences(document)]


# What there is, is documented


@pytest.mark.parametrize("page", PAGES)
def test_a_generated_page_is_current(page: str) -> None:
    written = (FOLDER / page).read_text(encoding="utf-8")

    assert written == PAGES[page](), "run: python tools/write_reference.py"


def test_every_setting_is_documented() -> None:
    page = (FOLDER / "settings.md").read_text(encoding="utf-8")

    assert {name for name in SETTINGS if f"| `{name}` |" not in page} == set()


def test_every_command_is_documented() -> None:
    page = (FOLDER / "cli.md").read_text(encoding="utf-8")
    names = {
        getattr(command.callback, "__name__", "")
        for command in app.registered_commands
        if not command.hidden
    }

    assert names >= {"serve", "web", "engine", "predict", "doctor", "connect", "config"}
    assert {name for name in names if f"## ml-backend {name}\n" not in page} == set()


def test_every_tag_option_is_documented_and_explained() -> None:
    page = (FOLDER / "tag-options.md").read_text(encoding="utf-8")
    guide = (ROOT / "docs/how-to/tune.md").read_text(encoding="utf-8")
    about_pictures = set(OPTIONS) - {
        *("model_name", "model_label", "model_skip", "model_max_regions"),
        *("model_roi", "model_group", "model_classes"),
    }

    every = {**OPTIONS, **CHOICES_OPTIONS, **CLUSTER_OPTIONS}
    assert {name for name in every if f"| `{name}` |" not in page} == set()
    assert {name for name in about_pictures if f"`{name}" not in guide} == set()


def test_every_error_code_is_documented() -> None:
    page = (FOLDER / "errors.md").read_text(encoding="utf-8")
    kinds = [BackendError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    ours = {kind.code for kind in kinds if kind.__module__ == BackendError.__module__}

    assert ours == set(STATUS_BY_CODE)
    assert {code for code in ours if f"| `{code}` |" not in page} == set()


def test_every_route_is_documented(tmp_path: Path) -> None:
    page = "".join((FOLDER / name).read_text(encoding="utf-8") for name in ROUTE_PAGES)
    described = build_web_app(Settings(data_dir=tmp_path)).openapi()["paths"]
    routes = {
        f"{method.upper()} {path}" for path, methods in described.items() for method in methods
    }

    assert routes >= {"GET /health", "POST /setup", "POST /predict", "GET /api/v1/sessions"}
    assert {route for route in routes if f"`{route}`" not in page} == set()


def test_settings_named_in_the_readme_exist() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| ((?:`[A-Z_]+`(?:, )?)+) \|", table, re.MULTILINE))
    names = {name for cell in named for name in re.findall(r"[A-Z_]+", cell)}

    assert names
    assert names <= SETTINGS


# What is shown is there and works


@pytest.mark.parametrize("document", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_and_picture_is_there(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    missing = [
        target
        for _, target in LINK.findall(text)
        if "://" not in target and not _resolves(document, target)
    ]

    assert missing == []


@pytest.mark.parametrize("fence", ALL_FENCES, ids=str)
def test_a_block_is_what_it_says_it_is(fence: Fence) -> None:
    assert fence.language in LANGUAGES
    if fence.language == "json":
        json.loads(fence.text)
    elif fence.language == "yaml":
        yaml.safe_load(fence.text)
    elif fence.language == "python":
        compile(fence.text, str(fence), "exec")
    elif fence.language == "xml":
        config = parse_label_config(fence.text)
        assert config.served
        assert config.warnings == ()


def test_models_that_are_named_exist() -> None:
    examples = [path.read_text(encoding="utf-8") for path in ROOT.glob("label_configs/*.xml")]
    examples += [fence.text for fence in ALL_FENCES if fence.language == "xml"]
    named = {name for text in examples for name in re.findall(r'model_name="([^"]+)"', text)}
    (about_model,) = [text for name, _, text in Settings.describe() if name == "MODEL"]
    named |= set(re.findall(r"[a-z]+[-_]\w+", about_model))

    assert named
    assert named - set(model_names()) == set()


def test_pages_are_reached_from_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    pages = [*ROOT.glob("docs/how-to/*.md"), *ROOT.glob("docs/reference/*.md")]

    assert pages
    assert {str(page.relative_to(ROOT / "docs")) for page in pages} <= {
        target for _, target in LINK.findall(index)
    }


def _resolves(document: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    file = (document.parent / path).resolve() if path else document
    if not file.exists() or not file.is_relative_to(ROOT):
        return False
    return not anchor or anchor in _anchors(file)


@functools.cache
def _anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub gives a document's headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.strip().lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}
