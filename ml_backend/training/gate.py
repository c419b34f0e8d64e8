"""Decides whether a candidate is better than what is served, on images that it never trained on.

The rule:

- Its mean AP over the IoU thresholds 0.5, 0.75 and 0.9 rises by 0.01 or more over the active
  network, and does not fall below the base network.
- The 5 % quantile of a paired bootstrap over the images is -0.01 or more.
- With fewer than 5 images it takes 30 objects or more and a rise of 0.05 or more.
- An AP at 0.5 below 0.05 on the images with objects is never promoted, whatever the project's
  setting: a network that finds nothing is right wherever there is nothing.
- Without a held-out image with objects nobody can tell.

Images whose objects are all a compared network's own, accepted without a change, do not count:
they would score that network near 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_backend.learning import Promotion
from ml_backend.training.scoring import ImageScore

LEAST_RISE = 0.01  # of the mean AP over the active network
LOWEST_QUANTILE = -0.01  # of the bootstrapped rise
QUANTILE = 0.05
LEAST_PRECISION = 0.05  # AP at 0.5
ENOUGH_IMAGES = 5
LEAST_OBJECTS = 30  # with fewer images than that
LEAST_RISE_FEW = 0.05  # with fewer images than that
RESAMPLES = 10_000
_SEED = 20_260_101
_ROUNDING = 1e-9

Scores = Sequence[ImageScore]
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a candidate is to be served, and why."""

    promote: bool
    sentence: str  # for a person
    numbers: Mapping[str, Any]  # JSON-able: what was compared, and the rule
    objection: str | None = None  # what speaks against it, as a part of a sentence


@dataclass(frozen=True, kw_only=True)
class _Table:
    """The scores of the images that count; the annotations of a task are averaged."""

    precision: Mapping[str, _Floats]  # network -> (images, thresholds)
    precision_at_half: float | None  # the candidate's, where objects are; None = nowhere
    found: Mapping[str, int]  # network -> objects
    objects: int  # outlined by people
    accepted: int  # images that do not count

    @property
    def images(self) -> int:
        return len(self.precision["candidate"])

    def means(self, network: str) -> _Floats:
        """Return the mean AP over thresholds of each image."""
        return np.asarray(self.precision[network].mean(axis=1), np.float64)


def judge(candidate: Scores, active: Scores, base: Scores, promotion: Promotion) -> Verdict:
    """Return whether the candidate is to be served.

    Args:
        candidate, active, base: the scores of the three networks on the same images.
        promotion: what the project wants; `ALWAYS` overrules all but an AP at 0.5 below 0.05,
            where that can be known.

    Raises:
        ValueError: the networks were scored on different images.
    """
    table = _table({"candidate": candidate, "active": active, "base": base})
    rise = quantile = over_base = None
    if table.images:
        differences = table.means("candidate") - table.means("active")
        rise = float(differences.mean())
        quantile = low_quantile(differences)
        over_base = float((table.means("candidate") - table.means("base")).mean())
    at_half = table.precision_at_half
    is_blind = at_half is not None and not at_half >= LEAST_PRECISION
    objection = _objection(table, rise, over_base, quantile)
    passed = objection is None
    promote = (
        not is_blind
        and {
            Promotion.AUTO: passed,
            Promotion.ALWAYS: True,
            Promotion.NEVER: False,
        }[promotion]
    )
    numbers = {
        "images": table.images,
        "accepted_images": table.accepted,
        "objects": table.objects,
        "few_images": table.images < ENOUGH_IMAGES,
        "ap50_where_objects_are": at_half,
        **{network: _numbers(table, network) for network in table.precision},
        "rise": rise,
        "rise_over_base": over_base,
        "low_quantile": quantile,
        "passed": passed,
        "promotion": promotion.value,
        "rule": _rule(),
    }
    return Verdict(
        promote=promote,
        sentence=_sentence(table, promote, objection),
        numbers=numbers,
        objection=objection,
    )


def low_quantile(differences: npt.NDArray[np.float64]) -> float:
    """Return the 5 % quantile of the mean of resampled `differences`, (images,); repeatable."""
    random = np.random.default_rng(_SEED)
    count = len(differences)
    means = np.empty(RESAMPLES)
    part = max(1, 2_000_000 // count)  # resamples whose indices fit a little memory
    for start in range(0, RESAMPLES, part):
        size = min(part, RESAMPLES - start)
        means[start : start + size] = differences[random.integers(0, count, (size, count))].mean(1)
    return float(np.quantile(means, QUANTILE))


def _table(scores: Mapping[str, Scores]) -> _Table:
    by_task = {network: _by_task(one) for network, one in scores.items()}
    tasks = list(by_task["candidate"])
    for network, one in scores.items():
        pairs = [(score.task_id, score.annotation_ids) for score in one]
        if pairs != [(score.task_id, score.annotation_ids) for score in scores["candidate"]]:
            raise ValueError(f"{network} and candidate were scored on different images")
    counted = {
        network: {task: _unless_accepted(members, task, by_task) for task, members in one.items()}
        for network, one in by_task.items()
    }
    counting = [task for task in tasks if counted["candidate"][task]]
    return _Table(
        precision={
            network: np.array(
                [_mean_precision(one[task]) for task in counting], np.float64
            ).reshape(len(counting), 3)
            for network, one in counted.items()
        },
        precision_at_half=_precision_at_half(counted["candidate"], counting),
        found={
            network: sum(one[task][0].found for task in counting)
            for network, one in counted.items()
        },
        objects=sum(counted["candidate"][task][0].objects for task in counting),
        accepted=len(tasks) - len(counting),
    )


def _by_task(scores: Scores) -> dict[int, list[ImageScore]]:
    found: dict[int, list[ImageScore]] = {}
    for score in scores:
        found.setdefault(score.task_id, []).append(score)
    return found


def _unless_accepted(
    members: list[ImageScore], task: int, by_task: Mapping[str, Mapping[int, list[ImageScore]]]
) -> list[ImageScore]:
    """Return a network's scores of a task less those that flatter one of the networks."""
    return [
        score
        for index, score in enumerate(members)
        if not any(one[task][index].accepted for one in by_task.values())
    ]


def _mean_precision(members: list[ImageScore]) -> list[float]:
    return [
        sum(values) / len(members)
        for values in zip(*((one.ap50, one.ap75, one.ap90) for one in members), strict=True)
    ]


def _precision_at_half(
    counted: Mapping[int, list[ImageScore]], tasks: Sequence[int]
) -> float | None:
    """Return the AP at 0.5 over the images with objects; None where there is no such image."""
    with_objects = ([one.ap50 for one in counted[task] if one.objects] for task in tasks)
    means = [sum(values) / len(values) for values in with_objects if values]
    return sum(means) / len(means) if means else None


def _objection(
    table: _Table, rise: float | None, over_base: float | None, quantile: float | None
) -> str | None:
    """Return what speaks against the candidate, as a part of a sentence; None when it passes."""
    if rise is None or over_base is None or quantile is None:
        return (
            "no image is held out that could tell whether it is better; annotate at least three "
            "images"
            if not table.accepted
            else "on every held-out image somebody accepted predictions as they were; annotate "
            "some images by hand, so that networks can be compared"
        )
    at_half = table.precision_at_half
    if at_half is None:
        counts = "that counts " if table.accepted else ""
        return (
            f"no held-out image {counts}has objects, so that nobody can tell what it finds; "
            "annotate more images with objects"
        )
    if not at_half >= LEAST_PRECISION:
        return (
            f"it finds next to nothing (AP at 0.5 is {at_half:.3f} where objects are, less than "
            f"{LEAST_PRECISION}); annotate more images, and check that the outlines fit them"
        )
    if not _reaches(over_base, 0.0):
        return f"it is {-over_base:.3f} worse than the base network"
    if table.images < ENOUGH_IMAGES and table.objects < LEAST_OBJECTS:
        return (
            f"{table.objects} objects on {_few(table)} cannot tell whether it is better; annotate "
            f"until {ENOUGH_IMAGES} images or {LEAST_OBJECTS} objects are held out"
        )
    wanted = LEAST_RISE_FEW if table.images < ENOUGH_IMAGES else LEAST_RISE
    if not _reaches(rise, wanted):
        few = f" (few images: only {table.images})" if table.images < ENOUGH_IMAGES else ""
        return f"its rise of {rise:+.3f} is less than the {wanted} that it takes{few}"
    if not _reaches(quantile, LOWEST_QUANTILE):
        return (
            f"its rise of {rise:+.3f} may be chance: on other images of this kind it could as well "
            f"be {quantile:+.3f}"
        )
    return None


def _sentence(table: _Table, promote: bool, objection: str | None) -> str:
    compared = _compared(table)
    if promote and objection is None:
        text = f"Promoted: {compared}."
    elif promote:
        text = f"Promoted because this project always does, although {objection}: {compared}."
    elif objection is None:
        text = (
            f"Kept as a candidate, because this project never promotes by itself: {compared}. It "
            "would have passed; activate it if you like."
        )
    else:
        text = f"Kept as a candidate, because {objection}: {compared}."
    if table.accepted:
        images = "image does" if table.accepted == 1 else "images do"
        text += (
            f" {table.accepted} held-out {images} not count: all objects there are predictions of "
            "a compared network that were accepted without a change."
        )
    return text


def _compared(table: _Table) -> str:
    if not table.images:
        return "nothing could be compared"
    candidate, active, base = (
        float(table.means(network).mean()) for network in ("candidate", "active", "base")
    )
    images = f"{table.images} held-out images with {table.objects} objects"
    if table.images < ENOUGH_IMAGES:
        images = f"{_few(table)} with {table.objects} objects"
    return f"mean AP {candidate:.3f}, served now {active:.3f}, base network {base:.3f}, on {images}"


def _few(table: _Table) -> str:
    return f"few images ({table.images} held out)"


def _numbers(table: _Table, network: str) -> dict[str, Any]:
    if not table.images:
        return {"ap50": None, "ap75": None, "ap90": None, "mean": None, "found": 0}
    low, middle, high = table.precision[network].mean(axis=0).tolist()
    return {
        "ap50": low,
        "ap75": middle,
        "ap90": high,
        "mean": float(table.means(network).mean()),
        "found": table.found[network],
    }


def _rule() -> dict[str, float]:
    return {
        "least_rise": LEAST_RISE,
        "least_rise_few_images": LEAST_RISE_FEW,
        "lowest_quantile": LOWEST_QUANTILE,
        "quantile": QUANTILE,
        "least_ap50": LEAST_PRECISION,
        "enough_images": ENOUGH_IMAGES,
        "least_objects": LEAST_OBJECTS,
        "resamples": RESAMPLES,
    }


def _reaches(value: float, least: float) -> bool:
    return math.isfinite(value) and value >= least - _ROUNDING
