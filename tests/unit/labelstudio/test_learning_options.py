"""What a label config says about training, and that it changes no prediction."""

from __future__ import annotations

import pytest

from ml_backend.errors import ConfigError
from ml_backend.labelstudio.controls import canonical_config, parse_label_config
from ml_backend.labelstudio.learning_options import LEARNING_OPTIONS, read_learning_options
from ml_backend.learning import (
    LearningOptions,
    Multiple,
    Promotion,
    TrainingParameters,
    TriggerPolicy,
)

DEFAULTS = LearningOptions(
    policy=TriggerPolicy(new_tasks=7), parameters=TrainingParameters(max_minutes=30.0)
)
GOOD_VALUES = {
    "model_training": "manual",
    "model_training_tasks": "20",
    "model_training_quiet": "5",
    "model_training_pause": "0",
    "model_training_min_tasks": "4",
    "model_training_minutes": "12.5",
    "model_promote": "never",
    "model_start_from": "active",
    "model_epochs": "40",
    "model_samples": "64",
    "model_batch_size": "2",
    "model_learning_rate": "1e-4",
    "model_weight_decay": "0.1",
    "model_validation_interval": "5",
    "model_min_train_masks": "3",
    "model_rescale": "false",
    "model_lora_rank": "8",
    "model_several_annotators": "all",
    "model_leave_out_unfinished": "yes",
}


def config(root: str = "", control: str = "") -> str:
    return (
        f'<View {root}><Image name="image" value="$image"/>'
        f'<PolygonLabels name="cells" toName="image" {control}><Label value="Cell"/>'
        '<Label value="Done"/></PolygonLabels></View>'
    )


def attributes(values: dict[str, str]) -> str:
    return " ".join(f'{name}="{value}"' for name, value in values.items())


def test_a_config_that_says_nothing_leaves_the_settings() -> None:
    assert read_learning_options(config(), DEFAULTS) == (DEFAULTS, ())


def test_every_option_of_the_root_tag_is_read() -> None:
    assert set(GOOD_VALUES) == set(LEARNING_OPTIONS)

    options, warnings = read_learning_options(config(attributes(GOOD_VALUES)), DEFAULTS)

    assert warnings == ()
    assert options.policy == TriggerPolicy(
        manual=True, new_tasks=20, quiet_s=5.0, pause_s=0.0, min_tasks=4
    )
    assert options.promotion is Promotion.NEVER
    assert options.parameters == TrainingParameters(
        n_epochs=40,
        learning_rate=1e-4,
        weight_decay=0.1,
        batch_size=2,
        n_samples=64,
        validation_interval=5,
        min_train_masks=3,
        max_minutes=12.5,
        rescale=False,
        from_active=True,
        lora_rank=8,
        leave_out_unfinished=True,
        multiple=Multiple.ALL,
    )


def test_what_is_not_said_keeps_its_default_beside_what_is() -> None:
    options, _ = read_learning_options(config('model_epochs="5"'), DEFAULTS)

    assert (options.policy.new_tasks, options.parameters.max_minutes) == (7, 30.0)
    assert options.parameters.n_epochs == 5


@pytest.mark.parametrize("name", sorted(LEARNING_OPTIONS))
def test_a_value_that_is_not_allowed_is_refused_at_setup_and_ignored_here(name: str) -> None:
    xml = config(f'{name}="perhaps"')

    with pytest.raises(ConfigError, match=f"{name}.*allowed is"):
        parse_label_config(xml)
    options, warnings = read_learning_options(xml, DEFAULTS)
    assert options == DEFAULTS
    assert len(warnings) == 1
    assert name in warnings[0]


@pytest.mark.parametrize(
    "text", ["0", "-1", "nan", "inf", "1e99"], ids=lambda text: f"tasks {text}"
)
def test_numbers_have_bounds(text: str) -> None:
    options, warnings = read_learning_options(config(f'model_training_tasks="{text}"'), DEFAULTS)

    assert (options, len(warnings)) == (DEFAULTS, 1)


def test_learning_options_change_no_prediction_and_are_known() -> None:
    plain, told = parse_label_config(config()), parse_label_config(config(attributes(GOOD_VALUES)))

    assert told.warnings == ()
    assert canonical_config(told) == canonical_config(plain)


def test_a_learning_option_on_a_control_is_ignored_with_a_warning() -> None:
    (warning,) = parse_label_config(config(control='model_epochs="5"')).warnings

    assert "model_epochs" in warning
    assert "root tag" in warning


def test_a_misspelt_learning_option_is_told_its_name() -> None:
    (warning,) = parse_label_config(config('model_epoch="5"')).warnings

    assert "did you mean model_epochs" in warning


def test_the_region_of_interest_and_the_group_may_stand_on_any_tag() -> None:
    xml = config('model_group="well"', control='model_roi="Done"')

    options, warnings = read_learning_options(xml, DEFAULTS)

    assert (options.roi_label, options.group_field, warnings) == ("Done", "well", ())


def test_two_different_groups_are_one_too_many() -> None:
    xml = config('model_group="well"', control='model_group="slide"')

    options, warnings = read_learning_options(xml, DEFAULTS)

    assert options.group_field == "well"
    assert len(warnings) == 1
    assert "slide" in warnings[0]


@pytest.mark.parametrize("xml", ["", "<View", "<!DOCTYPE x><View/>"])
def test_a_config_that_cannot_be_read_leaves_the_settings(xml: str) -> None:
    options, warnings = read_learning_options(xml, DEFAULTS)

    assert (options, len(warnings)) == (DEFAULTS, 1)
