"""What the environment may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml_backend.errors import SettingsError
from ml_backend.settings import Settings, read_client_settings, read_settings


def test_a_tilde_in_a_folder_is_the_home_folder() -> None:
    settings = read_settings(data_dir="~/cells", cellpose_local_models_path="~/models")

    assert settings.data_dir == Path.home() / "cells"
    assert settings.cellpose_models_dir == Path.home() / "models"


def test_a_budget_that_outlasts_label_studios_patience_is_refused() -> None:
    with pytest.raises(SettingsError, match="PREDICT_BUDGET_S"):
        read_settings(predict_budget_s=91)


def test_clients_read_their_two_settings_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "of another program")
    monkeypatch.setenv("ML_BACKEND_URL", "http://lab.example:9090/")
    monkeypatch.setenv("ML_BACKEND_TOKEN", "mlb_1_hush")

    settings = read_client_settings()

    assert settings.ml_backend_url == "http://lab.example:9090"
    assert "hush" not in repr(settings)


def test_an_address_of_a_backend_that_is_none_is_refused() -> None:
    for read in (read_client_settings, read_settings):
        with pytest.raises(SettingsError, match="ML_BACKEND_URL"):
            read(ml_backend_url="lab.example")


def test_what_is_for_clients_is_shown_last_and_masked() -> None:
    settings = read_settings(ml_backend_url="http://a:pass@b", ml_backend_token="hush")

    assert [name for name, _, _ in Settings.describe()][-2:] == list(settings.shown())[-2:]
    assert list(settings.shown())[-2:] == ["ML_BACKEND_URL", "ML_BACKEND_TOKEN"]
    assert set(settings.shown()) == {name.upper() for name in Settings.model_fields}
    assert "hush" not in str(settings.shown())
    assert "pass" not in settings.shown()["ML_BACKEND_URL"]
