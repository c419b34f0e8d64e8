"""Decides which `Choices` controls get what was learned now, on images that nothing learned from.

The rule, for each control by itself:

- Its score on the held-out images rises by 0.01 or more over what is served. The score is balanced
  accuracy (the mean over the classes of the share that is recognised), or macro F1 where several
  choices can be right. An answer that abstains is wrong.
- It is 0.05 or more above always giving the commonest answer: what people would believe of a
  classifier that has learned nothing.
- The 5 % quantile of a paired bootstrap over the images is -0.01 or more.
- With fewer than 5 held-out images nobody can tell by them. Then the cross-validation over the
  images for training must be 0.05 or more above the commonest answer, there must be 10 images or
  more, and on what is held out it is no worse than what is served.

Clusters alone claim nothing: they are served where nothing else is, and made anew when nothing else
was learned either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_backend.learning import Promotion

LEAST_RISE = 0.01  # over what is served
LEAST_OVER_COMMONEST = 0.05
LOWEST_QUANTILE = -0.01  # of the bootstrapped rise
QUANTILE = 0.05
ENOUGH_IMAGES = 5
LEAST_TRAINED_ON = 10  # with fewer held out than that
RESAMPLES = 4000
_SEED = 20_260_102
_ROUNDING = 1e-9

Marks = npt.NDArray[np.bool_]
"""(N, C) bool: which of C choices N images have."""


@dataclass(frozen=True, kw_only=True)
class ControlTrial:
    """How one control's candidate and what is served answer for the same held-out images."""

    name: str
    multiple: bool
    truth: Marks  # what people chose
    candidate: Marks
    active: Marks | None  # None: nothing is served that answers
    commonest: Marks  # always the answer that is commonest among the images for training
    trained_on: int  # images
    cross_validated: float | None  # the candidate's score on images for training; None = too few
    commonest_cross_validated: float  # the same of the commonest answer
    claims: bool = True  # whether the candidate answers at all: clusters alone do not
    has_clusters: bool = False  # whether what is served has clusters that may stay as they are


@dataclass(frozen=True, kw_only=True)
class ControlVerdict:
    """What becomes of one control's candidate."""

    passed: bool
    sentence: str
    numbers: Mapping[str, Any] = field(repr=False)


def score_of(truth: Marks, answered: Marks, *, multiple: bool) -> float:
    """Return macro F1 where several choices can be right, else balanced accuracy; 0..1."""
    if not len(truth):
        return 0.0
    return float(_scores(np.ones((1, len(truth))), truth, answered, multiple=multiple)[0])


def judge_control(trial: ControlTrial) -> ControlVerdict:
    """Return whether a control's candidate is better than what is served."""
    images = len(trial.truth)
    active = np.zeros_like(trial.truth) if trial.active is None else trial.active
    candidate_score, active_score, commonest_score = (
        score_of(trial.truth, answered, multiple=trial.multiple)
        for answered in (trial.candidate, active, trial.commonest)
    )
    rise = candidate_score - active_score
    quantile = _low_quantile(trial, active) if images else None
    objection = _objection(trial, candidate_score, rise, commonest_score, quantile)
    numbers = {
        "images": images,
        "few_images": images < ENOUGH_IMAGES,
        "metric": "macro F1" if trial.multiple else "balanced accuracy",
        "candidate": candidate_score if images else None,
        "active": None if trial.active is None or not images else active_score,
        "commonest_answer": commonest_score if images else None,
        "accuracy": float((trial.truth == trial.candidate).all(axis=1).mean()) if images else None,
        "rise": rise if images else None,
        "low_quantile": quantile,
        "cross_validated": trial.cross_validated,
        "trained_on": trial.trained_on,
        "passed": objection is None,
    }
    return ControlVerdict(
        passed=objection is None,
        sentence=_sentence(trial, numbers, objection),
        numbers=numbers,
    )


def takes_candidate(verdict: ControlVerdict, promotion: Promotion, *, claims: bool) -> bool:
    """Return whether a control is to be served with its candidate."""
    if promotion is Promotion.NEVER:
        return False
    return verdict.passed or (promotion is Promotion.ALWAYS and claims)


def _objection(
    trial: ControlTrial,
    score: float,
    rise: float,
    commonest: float,
    quantile: float | None,
) -> str | None:
    if not trial.claims:
        if trial.active is not None:
            return "nobody has chosen anything for it any more, and what is served answers"
        if trial.has_clusters:
            return "nobody has chosen anything for it; its clusters stay as they are"
        return None
    if len(trial.truth) < ENOUGH_IMAGES:
        return _objection_by_few(trial, rise)
    if not _reaches(score - commonest, LEAST_OVER_COMMONEST):
        return (
            f"it is hardly better than always giving the commonest answer ({score:.3f}, that one "
            f"has {commonest:.3f}); label more images"
        )
    if not _reaches(rise, LEAST_RISE):
        return f"its rise of {rise:+.3f} is less than the {LEAST_RISE} that it takes"
    if quantile is None or not _reaches(quantile, LOWEST_QUANTILE):
        return (
            f"its rise of {rise:+.3f} may be chance: on other images of this kind it could as well "
            f"be {quantile or 0:+.3f}"
        )
    return None


def _objection_by_few(trial: ControlTrial, rise: float) -> str | None:
    few = f"few images ({len(trial.truth)} held out)"
    if trial.trained_on < LEAST_TRAINED_ON or trial.cross_validated is None:
        return f"{few} cannot tell whether it is right; label more images"
    over = trial.cross_validated - trial.commonest_cross_validated
    if not _reaches(over, LEAST_OVER_COMMONEST):
        return (
            f"{few} cannot tell, and in cross-validation it is hardly better than always giving "
            "the commonest answer; label more images"
        )
    if len(trial.truth) and not _reaches(rise, 0.0):
        return f"on {few} it is {-rise:.3f} worse than what is served"
    return None


def _sentence(trial: ControlTrial, numbers: Mapping[str, Any], objection: str | None) -> str:
    if not trial.claims and objection is None:
        return f"{trial.name}: clusters without names; nothing is claimed."
    compared = f"{numbers['metric']} {_shown(numbers['candidate'])}"
    if trial.active is not None:
        compared += f", served now {_shown(numbers['active'])}"
    compared += (
        f", always the commonest answer {_shown(numbers['commonest_answer'])}, on "
        f"{len(trial.truth)} held-out images"
    )
    if len(trial.truth) < ENOUGH_IMAGES and trial.cross_validated is not None:
        compared += (
            f"; {trial.cross_validated:.3f} in cross-validation over {trial.trained_on} images"
        )
    if objection is None:
        return f"{trial.name}: better ({compared})."
    return f"{trial.name}: not taken, because {objection} ({compared})."


def _shown(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3f}"


def _low_quantile(trial: ControlTrial, active: Marks) -> float:
    """Return the 5 % quantile of the rise over resampled images; repeatable."""
    random = np.random.default_rng(_SEED)
    count = len(trial.truth)
    rises = np.empty(RESAMPLES)
    part = max(1, 4_000_000 // count)  # resamples whose weights fit a little memory
    for start in range(0, RESAMPLES, part):
        size = min(part, RESAMPLES - start)
        weights = random.multinomial(count, np.full(count, 1 / count), size).astype(np.float64)
        one, other = (
            _scores(weights, trial.truth, answered, multiple=trial.multiple)
            for answered in (trial.candidate, active)
        )
        rises[start : start + size] = one - other
    return float(np.quantile(rises, QUANTILE))


def _scores(
    weights: npt.NDArray[np.float64], truth: Marks, answered: Marks, *, multiple: bool
) -> npt.NDArray[np.float64]:
    """Return the score under each row of weights (R, N) -> (R,), over the classes that occur."""
    hit = weights @ (truth & answered)  # (R, C)
    there = weights @ truth
    total = there + weights @ answered if multiple else there
    occurs = there > 0
    part = np.divide(2 * hit if multiple else hit, total, out=np.zeros_like(hit), where=occurs)
    counted: npt.NDArray[np.float64] = occurs.sum(axis=1).clip(1)
    return np.asarray(part.sum(axis=1) / counted, np.float64)


def marks_of(chosen: Sequence[frozenset[str] | tuple[str, ...]], choices: Sequence[str]) -> Marks:
    """Return which of `choices` each of N images has, (N, C) bool."""
    return np.array([[choice in one for choice in choices] for one in chosen], np.bool_).reshape(
        len(chosen), len(choices)
    )


def commonest_answer(training: Marks, images: int, *, multiple: bool) -> Marks:
    """Return the answer that is commonest among `training`, for so many images, (images, C).

    Where several choices can be right: all those that more than half of the images have, or the
    commonest where none is so common.
    """
    share = training.mean(axis=0) if len(training) else np.zeros(training.shape[1])
    answer = share > 0.5 if multiple else np.zeros(len(share), np.bool_)
    if len(share) and not answer.any():
        answer[int(np.argmax(share))] = True
    return np.tile(answer, (images, 1))


def _reaches(value: float, least: float) -> bool:
    return math.isfinite(value) and value >= least - _ROUNDING
