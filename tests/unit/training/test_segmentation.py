"""The fine-tuning loop on a tiny network and tiny images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fine_tuning import (
    CPU,
    SHORT,
    StopsAfter,
    Watched,
    annotated,
    component_of,
    discs,
    save_network,
)
from safetensors.torch import load_file

from ml_backend.engines.catalogue import RESIDUAL_UNET
from ml_backend.engines.networks import load_network
from ml_backend.errors import TrainingError
from ml_backend.training.training_checkpoint import read_checkpoint_state
from tests.fakes import ManualClock

pytestmark = pytest.mark.unhurried

IMAGES = [discs(1), discs(2)]
HELD_OUT = [discs(3)]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(folder=tmp_path / "session", component=save_network(tmp_path))


def another(watched: Watched, name: str) -> Watched:
    return Watched(folder=watched.folder.parent / name, component=watched.component)


def test_the_loss_falls_on_images_it_has_never_seen(watched: Watched) -> None:
    watched.run(IMAGES, HELD_OUT, parameters=replace(SHORT, n_epochs=12, n_samples=24))
    assert watched.points[-1].validation_loss < 0.7 * watched.points[0].validation_loss


def test_every_epoch_is_told_with_losses_and_learning_rate(watched: Watched) -> None:
    tuned = watched.run(IMAGES, HELD_OUT)
    assert [point.epoch for point in watched.points] == [1, 2, 3]
    assert [point.step for point in watched.points] == [2, 4, 6]
    assert tuned.epochs == 3
    assert tuned.steps == 6
    assert all(
        point.validation_loss and point.loss and point.learning_rate for point in watched.points
    )


def test_the_weights_are_loaded_by_the_engine(watched: Watched) -> None:
    tuned = watched.run(IMAGES, HELD_OUT)
    network = load_network(component_of(tuned.weights, RESIDUAL_UNET), CPU)
    before = load_network(watched.component, CPU)
    x = torch.rand(1, 3, 64, 64)
    assert not torch.allclose(network(x)[0], before(x)[0])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_stopped_training_goes_on_to_the_same_bits(watched: Watched, precision: str) -> None:
    straight = another(watched, "straight")
    whole = straight.run(IMAGES, HELD_OUT, precision=precision)
    for steps in (1, 3):  # in the middle of an epoch
        stopped = watched.run(
            IMAGES, HELD_OUT, precision=precision, should_stop=StopsAfter(watched, steps)
        )
        assert stopped.stopped
        assert stopped.steps == steps
    resumed = watched.run(IMAGES, HELD_OUT, precision=precision)
    assert not resumed.stopped
    wanted, got = load_file(whole.checkpoint), load_file(resumed.checkpoint)
    assert wanted.keys() == got.keys()
    assert all(torch.equal(wanted[key], got[key]) for key in wanted)
    assert whole.weights.read_bytes() == resumed.weights.read_bytes()
    told = {point.epoch: point for point in watched.points}
    for point in straight.points:
        assert told[point.epoch].loss == pytest.approx(point.loss, abs=0)
        assert told[point.epoch].validation_loss == point.validation_loss


def test_a_training_that_is_over_is_not_done_again(watched: Watched) -> None:
    first = watched.run(IMAGES, HELD_OUT)
    before = first.weights.read_bytes()
    told = len(watched.points)
    again = watched.run(IMAGES, HELD_OUT)
    assert again.steps == first.steps
    assert len(watched.points) == told
    assert again.weights.read_bytes() == before


def test_a_checkpoint_of_other_images_is_not_continued(watched: Watched) -> None:
    watched.run(IMAGES, HELD_OUT)
    told = len(watched.points)
    watched.run([discs(7)], HELD_OUT)
    assert watched.points[told].epoch == 1


def test_a_resumed_training_keeps_its_number_format(watched: Watched) -> None:
    watched.run(IMAGES, HELD_OUT, precision="bfloat16", should_stop=StopsAfter(watched, 1))
    resumed = watched.run(IMAGES, HELD_OUT, precision=None)
    state = read_checkpoint_state(resumed.checkpoint)
    assert state is not None
    assert state["training"]["precision"] == "bfloat16"


def test_a_damaged_checkpoint_is_not_continued(watched: Watched) -> None:
    first = watched.run(IMAGES, HELD_OUT)
    first.checkpoint.write_bytes(first.checkpoint.read_bytes()[:1000])
    told = len(watched.points)
    watched.run(IMAGES, HELD_OUT)
    assert watched.points[told].epoch == 1


def test_stopping_before_the_first_step_leaves_usable_weights(watched: Watched) -> None:
    tuned = watched.run(IMAGES, HELD_OUT, should_stop=lambda: True)
    assert tuned.stopped
    assert tuned.steps == 0
    load_network(component_of(tuned.weights, RESIDUAL_UNET), CPU)


def test_stopping_while_images_are_prepared_again_keeps_the_best_weights(
    watched: Watched,
) -> None:
    first = watched.run(IMAGES, HELD_OUT)
    before = first.weights.read_bytes()
    watched.run(IMAGES, HELD_OUT, should_stop=lambda: True)
    assert first.weights.read_bytes() == before


def test_the_best_weights_are_those_with_the_best_score(watched: Watched) -> None:
    seen: list[bytes] = []

    def score(weights: Path, _: float | None) -> tuple[float, float, float]:
        seen.append(weights.read_bytes())
        return (0.1, 0.1, 0.1) if len(seen) != 2 else (0.9, 0.8, 0.7)

    tuned = watched.run(IMAGES, HELD_OUT, score=score)
    assert len(seen) == 3
    assert tuned.weights.read_bytes() == seen[1]
    assert [point.precision for point in watched.points][1] == (0.9, 0.8, 0.7)


def test_a_score_that_does_not_rise_ends_it_early(watched: Watched) -> None:
    scores = iter([0.5, 0.4, 0.3, 0.2])
    parameters = replace(SHORT, n_epochs=20, patience=2)
    tuned = watched.run(
        IMAGES, HELD_OUT, parameters=parameters, score=lambda *_: (next(scores),) * 3
    )
    assert tuned.early
    assert tuned.epochs == 3


def test_scores_are_taken_at_their_interval_and_at_the_end(watched: Watched) -> None:
    parameters = replace(SHORT, n_epochs=5, validation_interval=2)
    watched.run(IMAGES, HELD_OUT, parameters=parameters, score=lambda *_: (0.1, 0.1, 0.1))
    assert [p.epoch for p in watched.points if p.precision is not None] == [2, 4, 5]


def test_a_budget_that_is_used_up_ends_it_with_weights(watched: Watched) -> None:
    parameters = replace(SHORT, n_epochs=1000, max_minutes=1e-6)
    tuned = watched.run(IMAGES, HELD_OUT, parameters=parameters)
    assert tuned.steps == 1
    assert not tuned.stopped
    assert tuned.weights.is_file()


def test_preparing_images_and_scoring_do_not_use_the_budget_up(watched: Watched) -> None:
    clock = ManualClock()
    hour = 3600.0

    def score(_: Path, __: float | None) -> tuple[float, float, float]:
        clock.forward(hour)
        return (0.5, 0.5, 0.5)

    watched.on_step = lambda progress: clock.forward(
        {"preparing": hour, "training": 10.0}.get(progress.phase, 0.0)
    )
    parameters = replace(SHORT, max_minutes=1.5)
    tuned = watched.run(IMAGES, HELD_OUT, parameters=parameters, score=score, clock=clock)
    assert tuned.steps == 6  # of 10 s
    assert watched.points[-1].seconds == pytest.approx(60.0, abs=15)


def test_the_time_left_counts_scoring_but_not_what_images_took_to_prepare(
    watched: Watched,
) -> None:
    clock = ManualClock()

    def score(_: Path, __: float | None) -> tuple[float, float, float]:
        clock.forward(20.0)
        return (0.5, 0.5, 0.5)

    watched.on_step = lambda progress: clock.forward(
        {"preparing": 3600.0, "training": 10.0}.get(progress.phase, 0.0)
    )
    watched.run(IMAGES, HELD_OUT, score=score, clock=clock)
    told = [one for one in watched.steps if one.phase == "training"]
    assert told[2].step == 3
    # two steps of 10 s and a score of 20 s are over; three more steps are to come
    assert told[2].eta_s == pytest.approx(40.0 / 3 * 3)


def test_a_resumed_training_has_what_is_left_of_its_budget(watched: Watched) -> None:
    clock = ManualClock()
    watched.on_step = lambda progress: clock.forward(10.0 if progress.phase == "training" else 0.0)
    parameters = replace(SHORT, n_epochs=20, max_minutes=1.0)
    watched.run(
        IMAGES,
        HELD_OUT,
        parameters=parameters,
        clock=clock,
        should_stop=StopsAfter(watched, 4),
    )
    clock.forward(3600.0)
    tuned = watched.run(IMAGES, HELD_OUT, parameters=parameters, clock=clock)
    assert not tuned.stopped
    assert 6 <= tuned.steps <= 8  # of 10 s


def test_images_with_too_few_objects_are_left_out_but_empty_ones_are_not(
    watched: Watched,
) -> None:
    few, empty = discs(4, count=1), discs(5)
    empty = replace(empty, labels=empty.labels * 0)
    parameters = replace(SHORT, min_train_masks=3)
    tuned = watched.run([*IMAGES, few, empty], parameters=parameters)
    assert tuned.notes == ("1 images with fewer than 3 objects were left out.",)


def test_a_blank_image_is_left_out_and_named(watched: Watched) -> None:
    blank = annotated(9, IMAGES[0].image.pixels * 0, IMAGES[0].labels)
    tuned = watched.run([*IMAGES, blank])
    assert tuned.notes == ("Task 9 was left out: its image is blank.",)


def test_without_any_object_it_refuses(watched: Watched) -> None:
    empty = replace(IMAGES[0], labels=IMAGES[0].labels * 0)
    with pytest.raises(TrainingError, match="annotate more"):
        watched.run([empty])


def test_numbers_that_run_away_end_it_with_a_sentence(watched: Watched) -> None:
    network = load_network(watched.component, CPU)
    watched.network = network
    with torch.no_grad():
        network.head.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="smaller learning rate"):
        watched.run(IMAGES, parameters=replace(SHORT, n_epochs=20))


def test_the_measured_diameter_is_for_prediction_too(watched: Watched) -> None:
    assert watched.run(IMAGES, diameter=20.0).diameter == 20.0


def test_images_of_different_scales_leave_the_diameter_to_prediction(watched: Watched) -> None:
    assert watched.run(IMAGES, per_image_scale=True).diameter is None


@pytest.mark.parametrize(
    ("given", "served_at"),
    [
        ({}, 20.0),
        ({"per_image_scale": True}, None),
        ({"parameters": replace(SHORT, rescale=False)}, 22.0),
    ],
    ids=["measured", "estimated per image", "as images are"],
)
def test_weights_in_training_are_scored_at_the_diameter_that_they_are_served_at(
    watched: Watched, given: dict[str, Any], served_at: float | None
) -> None:
    scored_at = []

    def score(_: Path, diameter: float | None) -> tuple[float, float, float]:
        scored_at.append(diameter)
        return (0.5, 0.5, 0.5)

    tuned = watched.run(IMAGES, HELD_OUT, score=score, **given)
    assert scored_at == [pytest.approx(served_at)] * 3
    assert tuned.diameter == pytest.approx(served_at)


def test_without_rescaling_prediction_takes_images_as_they_are(watched: Watched) -> None:
    tuned = watched.run(IMAGES, parameters=replace(SHORT, rescale=False))
    assert tuned.diameter == pytest.approx(22.0)  # the network's own: scale 1
