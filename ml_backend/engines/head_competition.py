"""Choosing, training and calibrating the head of a `Choices` control. Needs scikit-learn.

Every kind of model is fitted to the same folds of the labelled items and scored on what it was not
fitted to; the best one is fitted again to everything. Fits run on one thread, so that the same
items and seed give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ml_backend.engines.calibration import (
    uncalibrated,
)
from ml_backend.engines.folds import deal_folds, group_numbers, largest_strata_sample, strata_of
from ml_backend.engines.head_fitting import Fit, competitors, learnable
from ml_backend.engines.head_models import Kind
from ml_backend.engines.head_trials import (
    ItemClusters,
    LabelledItems,
    calibrate,
    run_trial,
)
from ml_backend.engines.heads import (
    Head,
    HeadReport,
    is_independent,
)

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Progress = Callable[[float], None]

FOLDS: Final = 5
FOLDS_OF_MANY: Final = 3
MANY: Final = 5000  # items; scores of so many are sure enough with fewer folds
MOST_ITEMS: Final = 20_000  # that a head learns from; more cost hours and change little
AS_GOOD: Final = 0.005  # of balanced accuracy or macro F1; a simpler model that near the best wins


def compete(
    embeddings: FloatArray,
    labels: Sequence[frozenset[str]],
    classes: Sequence[str],
    *,
    multiple: bool,
    seed: int,
    clusters: ItemClusters | None = None,
    groups: Sequence[Hashable] | None = None,
    on_progress: Progress | None = None,
) -> Head | None:
    """Return the best head for a control, or None when no item has a label of the config.

    The kinds compete by cross-validation: balanced accuracy of single choices, macro F1 of multiple
    ones. Whoever comes within `AS_GOOD` of the best and is simplest wins: clusters, logistic
    regression, neighbours, network, in this order. The winner's scores from the cross-validation
    also fit its calibration.

    Args:
        embeddings: (N, D) float32, scaled, finite; of the training side of the split only.
        labels: the choices of each item. An empty set counts where `multiple` (none applies), and
            is left out where not, as is a set of several.
        classes: the values that the config offers, in its order. Items with any other value are
            left out and counted.
        multiple: whether an item may have several.
        seed: of the folds and fits.
        clusters: of the items; without, the k-means mapping does not compete.
        groups: items of one group (crops of one image) are trained on or scored together; by
            default items with equal embeddings are a group.
        on_progress: called with the share done, 0..1; what it raises ends the competition.
    """
    progress = on_progress or _ignore
    known = frozenset(classes)
    foreign = np.array([not label <= known for label in labels], bool)
    usable = np.array([multiple or len(label) == 1 for label in labels], bool) & ~foreign
    chosen = np.flatnonzero(usable)
    if len(chosen) == 0 or not classes:
        return None
    targets = np.array([[name in labels[i] for name in classes] for i in chosen], bool)
    sample = largest_strata_sample(strata_of(targets), MOST_ITEMS, seed)
    chosen, targets = chosen[sample], targets[sample]
    points = np.ascontiguousarray(embeddings[chosen], np.float32)
    names = [row.tobytes() for row in points] if groups is None else [groups[i] for i in chosen]
    items = LabelledItems(
        embeddings=points,
        targets=targets,
        groups=group_numbers(names),
        clusters=None
        if clusters is None
        else ItemClusters(rows=clusters.rows[chosen], count=clusters.count),
        independent=is_independent(classes, multiple=multiple),
    )
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        return _best_head(items, tuple(classes), multiple, int(foreign.sum()), seed, progress)


def _best_head(
    items: LabelledItems,
    classes: tuple[str, ...],
    multiple: bool,
    left_out: int,
    seed: int,
    on_progress: Progress,
) -> Head:
    everything = np.arange(len(items.targets))
    fits = _fits(items, everything, seed)
    wanted = FOLDS_OF_MANY if len(everything) > MANY else FOLDS
    folds = deal_folds(strata_of(items.targets), items.groups, wanted, seed)
    count = int(folds.max()) + 1
    trials = {}
    if fits and count > 1:
        for number, (kind, fit) in enumerate(fits.items()):
            share = _Share(on_progress, number * (count + 1), len(fits) * (count + 1) + 1)
            trials[kind] = run_trial(items, fit, folds, seed, share)
    winner = _winner({kind: trial.quality for kind, trial in trials.items()}, list(fits))
    scorer = items.scorer(everything, fits.get(winner), seed)
    calibration = uncalibrated(len(classes))
    if winner in trials:
        calibration = calibrate(trials[winner].scores, items.targets, scorer)
    on_progress(1.0)
    trial = trials.get(winner)
    return Head(
        classes=classes,
        multiple=multiple,
        scorer=scorer,
        calibration=calibration,
        report=HeadReport(
            metric="macro F1" if multiple else "balanced accuracy",
            scores={kind: trial.quality for kind, trial in trials.items()},
            items=len(everything),
            items_per_class=dict(zip(classes, items.targets.sum(axis=0).tolist(), strict=True)),
            left_out=left_out,
            folds=count if trials else 0,
            calibration_error_before=None if trial is None else trial.error_before,
            calibration_error_after=None if trial is None else trial.error_after,
            remarks=_remarks(items, classes, multiple, left_out, compared=bool(trials)),
        ),
    )


class _Share:
    """Says how much is done after each fold of one kind."""

    def __init__(self, on_progress: Progress, before: int, of: int) -> None:
        self._on_progress, self._before, self._of = on_progress, before, of

    def __call__(self, folds: int) -> None:
        self._on_progress((self._before + folds) / self._of)


def _fits(items: LabelledItems, everything: IntArray, seed: int) -> dict[Kind, Fit]:
    learned = np.flatnonzero(learnable(items.targets, items.independent))
    if len(learned) < (1 if items.independent else 2):
        return {}
    return competitors(items.examples(everything, learned), seed)


def _winner(qualities: dict[Kind, float], order: Sequence[Kind]) -> Kind:
    if not order:
        return Kind.CONSTANT
    if not qualities:  # nothing to compare by: the plainest that looks at the item itself
        return Kind.LOGISTIC
    best = max(qualities.values())
    return next(kind for kind in order if qualities[kind] >= best - AS_GOOD)


def _remarks(
    items: LabelledItems, classes: tuple[str, ...], multiple: bool, left_out: int, *, compared: bool
) -> tuple[str, ...]:
    remarks = []
    counts = items.targets.sum(axis=0)
    used = [name for name, count in zip(classes, counts, strict=True) if count]
    if len(used) == 1 and not multiple:
        remarks.append(
            f"All {len(items.targets)} labelled items are {used[0]!r}, so that is the answer for "
            "every item; label some of another class."
        )
    elif not learnable(items.targets, items.independent).any():
        remarks.append(
            f"All {len(items.targets)} labelled items have the same choices, so that is the answer "
            "for every item; label some that differ."
        )
    elif not compared:
        remarks.append(
            "All labelled items look the same, so that the kinds of head could not be compared."
        )
    single = [name for name, count in zip(classes, counts, strict=True) if count == 1]
    if single and compared:
        remarks.append(
            f"Of {len(single)} classes there is one example only ({', '.join(single[:5])}), so "
            "that the cross-validation could not recognise them; label more of them."
        )
    if left_out:
        remarks.append(
            f"{left_out} labelled items have a label that the config no longer offers; they were "
            "left out."
        )
    return tuple(remarks)


def _ignore(_share: float) -> None:
    return None
