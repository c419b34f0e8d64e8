"""What Docker, make and the continuous integration are told exists."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from ml_backend.cli import app
from ml_backend.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
OURS = ("web", "engine", "trainer")
VARIABLE = re.compile(r"\$\{([A-Z_]+)")


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


@pytest.fixture(scope="module")
def example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return dict(pairs)  # type: ignore[arg-type]  # split at most once gives pairs


@pytest.mark.parametrize("service", OURS)
def test_our_services_run_commands_and_set_settings_that_exist(compose: Any, service: str) -> None:
    told = compose["services"][service]
    commands = get_command(app).commands  # type: ignore[attr-defined]  # it is a group

    assert told["command"] == [service]
    assert service in commands
    assert set(told["environment"]) <= {name.upper() for name in Settings.model_fields}


def test_every_service_has_a_health_check_and_restarts(compose: Any) -> None:
    services = compose["services"]

    assert {name for name, told in services.items() if "healthcheck" not in told} == set()
    assert {told["restart"] for told in services.values()} == {"unless-stopped"}


def test_label_studio_has_both_network_guards_off(compose: Any) -> None:
    environment = compose["services"]["label-studio"]["environment"]

    assert compose["services"]["label-studio"]["image"].endswith(":1.23.2")
    assert environment["ML_BLOCK_LOCAL_IP"] == "false"
    assert environment["SSRF_PROTECTION_ENABLED"] == "false"


def test_every_variable_that_compose_asks_for_is_in_the_example(example: dict[str, str]) -> None:
    asked = set(VARIABLE.findall((ROOT / "docker-compose.yml").read_text()))

    assert asked == set(example)


def test_the_example_holds_no_secret(example: dict[str, str]) -> None:
    secrets = [name for name in example if "SECRET" in name or "PASSWORD" in name or "KEY" in name]

    assert secrets
    assert {example[name] for name in secrets} == {""}


def test_only_declared_services_volumes_and_configs_are_used(compose: Any) -> None:
    services = compose["services"]
    volumes = {
        volume.partition(":")[0] for told in services.values() for volume in told.get("volumes", ())
    }
    needed = {name for told in services.values() for name in told.get("depends_on", ())}
    gpu = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())

    assert volumes == set(compose["volumes"])
    assert needed <= set(services)
    assert set(gpu["services"]) <= set(OURS)


def test_the_image_runs_as_a_user_of_its_own_and_copies_what_exists() -> None:
    text = (ROOT / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    files = [name for words in copied for name in words.split()]

    assert re.search(r"^USER backend$", text, re.MULTILINE)
    assert "HOST=0.0.0.0" in text
    assert [name for name in files if not (ROOT / name).exists()] == []


def test_every_dependency_is_pinned() -> None:
    pinned = {
        re.split(r"[=<>]", line)[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    text = (ROOT / "pyproject.toml").read_text()
    listed = re.findall(r'^  "([A-Za-z0-9_.-]+)(?:\[[a-z]+\])?[<>=]', text, re.MULTILINE)

    assert listed
    assert {name.lower().replace("_", "-") for name in listed} - pinned == set()


def test_make_lists_its_targets() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)

    for target in ("demo", "demo-check", "test", "test-quick", "test-long", "lint", "benchmarks"):
        assert re.search(rf"^  {target} +\w", shown.stdout, re.MULTILINE)


def test_continuous_integration_runs_what_the_readme_says() -> None:
    script = ROOT / ".ci" / "run"

    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text()
    assert "make test" in (ROOT / "README.md").read_text()
