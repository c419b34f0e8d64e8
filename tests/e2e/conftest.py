"""Servers that end-to-end tests share: started when the first test asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.site import Site, open_site
from tools.label_studio_server import find_label_studio, shared_seed


@pytest.fixture(scope="session")
def label_studio_program() -> Path:
    """The program `label-studio`, in an environment of its own."""
    program = find_label_studio()
    if program is None:
        pytest.skip("Label Studio is not installed: `make test` does it, or set LABEL_STUDIO_BIN")
    return program


@pytest.fixture(scope="session")
def seed(label_studio_program: Path) -> Path:
    """A data folder of Label Studio with its tables and one user; copied, never used itself."""
    return shared_seed(label_studio_program)


@pytest.fixture(scope="session")
def site(
    label_studio_program: Path, seed: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Label Studio with legacy tokens allowed, and our backend."""
    folder = tmp_path_factory.mktemp("legacy")
    with open_site(folder, label_studio_program, seed, personal_token=False) as opened:
        yield opened


@pytest.fixture(scope="session")
def personal_site(
    label_studio_program: Path, seed: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Label Studio as a new organization has it, personal access tokens only, and our backend."""
    folder = tmp_path_factory.mktemp("personal")
    with open_site(folder, label_studio_program, seed, personal_token=True) as opened:
        yield opened


@pytest.fixture(params=["legacy token", "personal access token"])
def either_site(request: pytest.FixtureRequest) -> Site:
    """Both kinds of token, one after the other."""
    name = "site" if request.param == "legacy token" else "personal_site"
    found = request.getfixturevalue(name)
    assert isinstance(found, Site)
    return found
