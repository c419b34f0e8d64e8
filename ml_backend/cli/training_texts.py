"""What `train` shows of a training: how far it is, and at its end what came of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from ml_backend.cli.session_texts import duration_text
from ml_backend.learning import EpochPoint

_BLOCKS = "▁▂▃▄▅▆▇█"
_ROWS = 8  # of the table of epochs
_WIDTH = 60  # of a sparkline

DOING = {
    "dataset": "reading the images",
    "baseline": "scoring the network that it starts from",
    "preparing": "preparing the images",
    "training": "training",
    "scoring": "scoring",
    "publishing": "keeping the model",
}


def doing_text(progress: Mapping[str, Any]) -> str:
    """Return what a session is doing, in words."""
    phase = str(progress.get("phase") or "")
    return DOING.get(phase, phase)


def facts_text(progress: Mapping[str, Any]) -> str:
    """Return the loss and the time that is left, where they are known."""
    parts = []
    if (loss := _number(progress.get("loss"))) is not None:
        parts.append(f"loss {loss:.4f}")
    if (eta_s := _number(progress.get("eta_s"))) is not None:
        parts.append(f"about {duration_text(eta_s)} left")
    return ", ".join(parts)


class EpochLines:
    """Says a line for each epoch that is over, for logs."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._last: Mapping[str, Any] = {}  # of the epoch that goes on

    def __call__(self, progress: Mapping[str, Any]) -> None:
        """Hear of progress."""
        before = self._last
        is_training = progress.get("phase") == "training"
        if before and (not is_training or progress.get("epoch") != before.get("epoch")):
            self._say(epoch_line(before))
            self._last = {}
        if is_training and progress.get("epoch"):
            self._last = dict(progress)


def epoch_line(progress: Mapping[str, Any]) -> str:
    """Return a line for an epoch."""
    line = f"epoch {progress.get('epoch')} of {progress.get('epochs')}"
    facts = facts_text(progress)
    return f"{line}: {facts}" if facts else line


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """Return a curve as one line of blocks, at most `width` long; "" without numbers."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    count = min(width, len(finite))
    edges = [round(at * len(finite) / count) for at in range(count + 1)]
    means = [sum(finite[first:last]) / (last - first) for first, last in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(_BLOCKS[round((mean - low) / span * (len(_BLOCKS) - 1))] for mean in means)


def curve_lines(points: Sequence[EpochPoint]) -> Iterator[str]:
    """Yield a line for each curve that has at least two points."""
    curves: Mapping[str, Sequence[float | None]] = {
        "loss": [point.loss for point in points],
        "held-out loss": [point.validation_loss for point in points],
        "AP@0.5": [point.precision[0] if point.precision else None for point in points],
    }
    for name, values in curves.items():
        known = [value for value in values if value is not None and math.isfinite(value)]
        if len(known) > 1:
            yield f"{name:<14} {sparkline(known)}  {known[0]:.4g} -> {known[-1]:.4g}"


def epochs_table(points: Sequence[EpochPoint]) -> Table:
    """Return a table of some epochs, the first and the last and those that were scored first."""
    with_pixels = any(point.pixels for point in points)
    table = Table("epoch", "loss", "held-out loss", "AP@0.5", "AP@0.75", "AP@0.9")
    if with_pixels:
        table.add_column("test: pixel F1")
        table.add_column("pixel IoU")
    for point in _some(points):
        numbers: list[float | None] = [point.loss, point.validation_loss]
        numbers += point.precision or (None, None, None)
        if with_pixels:
            numbers += point.pixels[2:] if point.pixels else (None, None)
        table.add_row(
            str(point.epoch), *("" if number is None else f"{number:.4g}" for number in numbers)
        )
    return table


def _some(points: Sequence[EpochPoint]) -> list[EpochPoint]:
    if len(points) <= _ROWS:
        return list(points)
    scored = [point for point in points if point.precision or point.pixels]
    wanted = scored if len(scored) >= 2 else list(points)
    middle = [wanted[round(at * (len(wanted) - 1) / (_ROWS - 3))] for at in range(_ROWS - 2)]
    chosen = {point.epoch: point for point in (points[0], *middle, points[-1])}
    return [chosen[epoch] for epoch in sorted(chosen)]


def table_of_test(test: Mapping[str, Any]) -> Table:
    """Return a table of what the test set says of the network before and after."""
    table = Table(
        f"test set: {test['images']} images, {test['objects']} objects",
        *("AP@0.5", "AP@0.75", "AP@0.9", "pixel F1"),
    )
    for name, key in (("before", "base"), ("after", "candidate")):
        facts = test[key]
        numbers = [*(facts[one] for one in ("ap50", "ap75", "ap90")), facts["pixels"]["f1"]]
        table.add_row(name, *(f"{number:.4f}" for number in numbers))
    return table


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None
