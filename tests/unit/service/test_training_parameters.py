"""What callers may say of a training, and what they are told when they may not."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_backend.errors import BadRequest
from ml_backend.learning import TrainingParameters
from ml_backend.recipes import DEFAULTS, recipe_for
from ml_backend.service.training_parameter import TrainingParameter
from ml_backend.service.training_parameters import (
    FIELDS_OF_PROJECTS,
    PARAMETERS,
    named_parameters,
    read_parameters,
)

REFERENCE = {
    "n_samples": "one for each image",
    "n_epochs": 10,
    "learning_rate": 1e-6,
    "weight_decay": 1e-4,
    "min_train_masks": 5,
    "validation_interval": "every 10 epochs, and the first",
    "enable_clahe": False,
    "rescale": False,
}
GOOD: dict[str, list[Any]] = {
    "n_epochs": [1, 100_000, 5.0],
    "learning_rate": [1e-6, 1, 10],
    "weight_decay": [0, 0.1, 10],
    "n_samples": [1, 1_000_000],
    "min_train_masks": [0, 5],
    "validation_interval": [1, 100_000],
    "enable_clahe": [True, False],
    "rescale": [True, False],
    "batch_size": [1, 1024],
    "crop": [64, 1024],
    "max_minutes": [0.01, 100_000],
    "patience": [1, 100_000],
    "lora_rank": [0, 1024],
    "seed": [0, 2**32 - 1],
    "from_active": [True, False],
}
BAD: dict[str, list[Any]] = {
    "n_epochs": [0, -1, 100_001, 1.5, "5", True, [], {}, math.inf, math.nan, 10**400],
    "learning_rate": [0, 0.0, -1e-6, 10.1, "1e-5", False, math.nan],
    "weight_decay": [-0.1, 10.5, "x"],
    "n_samples": [0, 1_000_001],
    "min_train_masks": [-1, 1.5],
    "validation_interval": [0],
    "enable_clahe": [0, 1, "true", "yes"],
    "rescale": [1.0, []],
    "batch_size": [0, 1025],
    "crop": [0, 63, 100, 1040],
    "max_minutes": [0, -1, math.inf],
    "patience": [0],
    "lora_rank": [-1, 1025],
    "seed": [-1, 2**32],
    "from_active": ["active"],
}


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda one: one.name)
def test_every_parameter_takes_its_range_and_nothing_else(parameter: TrainingParameter) -> None:
    name = parameter.name
    for value in GOOD[name]:
        read = read_parameters({name: value}, of_project=True)
        assert read == {parameter.field: value}
        assert type(read[parameter.field]) is parameter.kind
    for value in BAD[name]:
        with pytest.raises(BadRequest) as refused:
            read_parameters({name: value}, of_project=True)
        sentence = refused.value.message
        assert sentence.startswith(f"{name} is ")
        assert sentence.endswith(f"; it must be {parameter.allowed}.")
        assert len(sentence) < 250


def test_what_is_left_open_is_not_set() -> None:
    assert read_parameters({}, of_project=False) == {}
    assert read_parameters({parameter.name: None for parameter in PARAMETERS}, of_project=True) == (
        {}
    )


def test_every_bad_field_has_its_sentence() -> None:
    with pytest.raises(BadRequest) as refused:
        read_parameters({"n_epochs": 0, "seed": 3, "crop": 1, "epochs": 3}, of_project=True)
    assert refused.value.message == (
        "n_epochs is 0; it must be a whole number from 1 to 100000. crop is 1; it must be a whole "
        "number from 64 to 1024, a multiple of 16. There is no training parameter 'epochs'."
    )


def test_a_dataset_serves_no_model_to_start_from() -> None:
    with pytest.raises(BadRequest, match="`model` instead"):
        read_parameters({"from_active": True}, of_project=False)
    assert read_parameters({"from_active": None}, of_project=False) == {}


def test_every_field_of_the_parameters_is_named_once() -> None:
    named = [parameter.field for parameter in PARAMETERS]
    assert sorted([*named, *FIELDS_OF_PROJECTS]) == sorted(
        field.name for field in fields(TrainingParameters)
    )
    values = named_parameters(TrainingParameters(clahe=True, n_epochs=7))
    assert (values["enable_clahe"], values["n_epochs"], values["multiple"]) == (True, 7, "latest")
    assert "clahe" not in values


def test_the_references_parameters_all_have_a_place() -> None:
    stands = {one.name: one.reference.default for one in PARAMETERS if one.reference is not None}
    assert stands == REFERENCE
    for parameter in PARAMETERS:
        if parameter.reference is not None:
            assert parameter.reference.why.endswith(".")


def test_the_defaults_that_are_shown_are_those_that_are_used() -> None:
    for architecture in DEFAULTS:
        recipe = recipe_for(architecture, TrainingParameters(), images=1)
        usual = TrainingParameters().canonical()
        for parameter in PARAMETERS:
            shown = parameter.defaults()[architecture]
            if not isinstance(shown, str):
                used = getattr(recipe, parameter.field, usual.get(parameter.field))
                assert shown == used, parameter.name


@given(
    st.dictionaries(
        st.sampled_from([*GOOD, "other"]),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    )
)
def test_whatever_comes_is_read_or_refused_with_a_sentence(values: dict[str, Any]) -> None:
    said = None
    try:
        TrainingParameters(**read_parameters(values, of_project=True))
    except BadRequest as refused:
        said = refused.message
    assert said is None or said.endswith(".")
