"""The doctor of a backend that serves a toolkit class looks at that, and at no networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml_backend.errors import ConfigError, ModelError
from ml_backend.service.checks import Status
from ml_backend.service.doctor import run_checks
from tests.unit.service.test_doctor import (
    URL,
    connected_label_studio,
    instruments_for,
    settings_for,
)


def refuse(_config: str) -> object:
    """Read no label config: that is the class's business."""
    raise ConfigError


@pytest.mark.parametrize("works", [True, False])
def test_the_class_is_imported_and_label_configs_are_left_to_it(
    tmp_path: Path, works: bool
) -> None:
    def broken() -> object:
        raise ModelError("model.py cannot be imported.")

    resolve = {} if works else {"resolve_model": broken}
    instruments = instruments_for(connected_label_studio(), parse_label_config=refuse, **resolve)
    checks = run_checks(
        settings_for(tmp_path, toolkit_model="model.py"),
        instruments,
        backend_url=URL,
        project="3",
    )
    found = {check.name: check for check in checks}
    assert {"model", "embedder", "label config", "image"}.isdisjoint(found)
    assert {"toolkit class", "connection", "webhook"} <= found.keys()
    status = Status.OK if works else Status.FAILED
    assert found["toolkit class"].status is status
