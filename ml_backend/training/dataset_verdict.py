"""What is said of a network that was trained on a dataset: it is compared, and served by nobody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ml_backend.learning import Promotion
from ml_backend.training.gate import Scores, Verdict, judge


def judge_for_dataset(
    candidate: Scores, active: Scores, base: Scores, _promotion: Promotion
) -> Verdict:
    """Return what the gate says of a candidate, without ever promoting it: it belongs nowhere yet.

    Args:
        candidate, active, base: the scores of the networks on the same images.

    Raises:
        ValueError: the networks were scored on different images.
    """
    verdict = judge(candidate, active, base, Promotion.NEVER)
    return replace(verdict, promote=False, sentence=_sentence(verdict))


def _sentence(verdict: Verdict) -> str:
    compared = _compared(verdict.numbers)
    if verdict.objection is None:
        return f"It is better than the network that it was trained from: {compared}."
    return (
        "It was not shown to be better than the network that it was trained from, because "
        f"{verdict.objection}: {compared}."
    )


def _compared(numbers: Mapping[str, Any]) -> str:
    images = numbers["images"]
    if not images:
        return "nothing could be compared"
    counted = "1 held-out image" if images == 1 else f"{images} held-out images"
    return (
        f"mean AP {numbers['candidate']['mean']:.3f}, before {numbers['base']['mean']:.3f}, on "
        f"{counted} with {numbers['objects']} objects"
    )
