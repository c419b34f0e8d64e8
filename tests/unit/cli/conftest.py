"""Commands run inside the test's own process here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """Undo what a command set up: its standard error is closed when the test is over."""
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
