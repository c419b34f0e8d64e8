"""What the environment may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml_backend.errors import SettingsError
from ml_backend.settings import read_settings


def test_a_tilde_in_a_folder_is_the_home_folder() -> None:
    settings = read_settings(data_dir="~/cells", cellpose_local_models_path="~/models")

    assert settings.data_dir == Path.home() / "cells"
    assert settings.cellpose_models_dir == Path.home() / "models"


def test_a_budget_that_outlasts_label_studios_patience_is_refused() -> None:
    with pytest.raises(SettingsError, match="PREDICT_BUDGET_S"):
        read_settings(predict_budget_s=91)
