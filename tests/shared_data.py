"""Where the annotated image sets lie, for tests that read them."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not here")
