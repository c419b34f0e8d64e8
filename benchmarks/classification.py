"""The built-in embedder, k-means and heads on annotated crops, with nothing downloaded.

    python benchmarks/classification.py [--splits 5] [--embedder shapes-1] [--no-curve]
    python benchmarks/classification.py --scale [--images 10000]

Accuracy: trained on a random half of ../shared/data/ndsb_plankton and bccd_cells and scored on the
other; the mean over seeded splits. As in a project, the scaling is fitted to all images, without
their labels, and the heads compete by cross-validation on the training half. The floor is a
histogram of oriented gradients (HOG) with local binary patterns (LBP) and a logistic regression,
its penalty chosen by cross-validation too, on the same splits; `known floor` is what the
description of the data says of such features. Nothing that is shipped is made from these images.

Scale: crops made by code are embedded, clustered and predicted on the processor; and fits on
synthetic embeddings grow from 1000 to 100 000, k-means against scikit-learn's own on the same
points, each ratio being ours / theirs. `MB` is by how much a step raised the most memory that its
process ever had; 0 where an earlier step had needed as much.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from image_sets import LARGEST_MEGAPIXELS, SHARED
from rich.console import Console
from rich.table import Table
from skimage.feature import hog, local_binary_pattern
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, adjusted_rand_score, balanced_accuracy_score, f1_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from ml_backend.domain import Pixels
from ml_backend.engines.clustering import CLUSTERS_PER_CLASS, RUNS, assign, fit_clusters
from ml_backend.engines.descriptors import GROUPS, NAME
from ml_backend.engines.device_profile import open_device
from ml_backend.engines.embedder_catalogue import resolve_embedder
from ml_backend.engines.embedding import Embedder, open_embedder
from ml_backend.engines.head_competition import compete
from ml_backend.engines.head_trials import ItemClusters
from ml_backend.engines.heads import Head
from ml_backend.engines.scaling import Scaling, fit_scaling
from ml_backend.imaging.decode import decode_image

FloatArray = npt.NDArray[np.float32]
Names = npt.NDArray[np.str_]
Rows = npt.NDArray[np.int64]

TARGETS = {
    "plankton, 12 classes, 30 labels each": ("accuracy", 0.75),
    "plankton or detritus": ("balanced accuracy", 0.80),
    "blood cells": ("accuracy", 0.97),
    "plankton, k-means": ("adjusted Rand index", 0.38),
}
# of histograms of oriented gradients and local binary patterns, from the data's own description
KNOWN_FLOOR = {
    "plankton, 12 classes, 30 labels each": 0.62,
    "blood cells": 0.93,
    "plankton, k-means": 0.24,
}
CURVE = (12, 24, 48, 96, 192, 360)  # labels
CLUSTER_SEEDS = 5
GROWTH = (1_000, 10_000, 100_000)  # synthetic embeddings
SYNTHETIC_CLASSES = 12
SYNTHETIC_SPREAD = 0.08  # of the centres, to a standard deviation of 1 around them


@dataclass(frozen=True, kw_only=True)
class Crops:
    """Annotated crops."""

    pixels: list[Pixels]
    labels: Names  # (N,)
    groups: Names  # (N,), empty where the set has none


def read_crops(name: str) -> Crops:
    """Return a set of ../shared/data."""
    folder = SHARED / name
    with (folder / "index.csv").open(encoding="utf-8") as index:
        rows = list(csv.DictReader(index))
    return Crops(
        pixels=[
            decode_image(folder / row["file"], max_megapixels=LARGEST_MEGAPIXELS).pixels
            for row in rows
        ],
        labels=np.array([row["label"] for row in rows]),
        groups=np.array([row.get("group", "") for row in rows]),
    )


def split(labels: Names, seed: int, per_class: int | None = None) -> tuple[Rows, Rows]:
    """Return the rows to train on and to score: halves of each class, the first cut short."""
    random = np.random.default_rng(seed)
    train: list[int] = []
    scored: list[int] = []
    for name in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == name)).tolist()
        half = len(rows) // 2
        train += rows[:half][:per_class]
        scored += rows[half:]
    return np.array(train), np.array(scored)


def hog_and_patterns(pixels: Pixels) -> FloatArray:
    """Return the floor's features of a crop: HOG at 64 x 64 pixels and LBP at three radii."""
    gray = pixels.astype(np.float32).mean(axis=2).astype(np.uint8)
    small = cv2.resize(gray, (64, 64), interpolation=cv2.INTER_AREA)
    gradients = hog(small, orientations=9, pixels_per_cell=(16, 16), cells_per_block=(2, 2))
    histograms = []
    for points, radius in ((8, 1), (16, 2), (24, 3)):
        codes = local_binary_pattern(gray, points, radius, "uniform").astype(np.int64)
        histograms.append(np.bincount(codes.ravel(), minlength=points + 2) / codes.size)
    return np.asarray(np.concatenate([gradients, *histograms]), np.float32)


def floor_predicts(features: FloatArray, labels: Names, train: Rows, scored: Rows) -> Names:
    """Return what the peer answers: standardised, a logistic regression with a chosen penalty."""
    regression = LogisticRegression(class_weight="balanced", max_iter=300)
    grid = {"logisticregression__C": (0.01, 0.1, 1.0)}
    peer = GridSearchCV(make_pipeline(StandardScaler(), regression), grid, cv=3)
    peer.fit(features[train], labels[train])
    return np.asarray(peer.predict(features[scored]))


def train_head(points: FloatArray, labels: Names, train: Rows, seed: int) -> tuple[Head, Rows]:
    """Return the winner of the competition, and the cluster of every point."""
    classes = np.unique(labels)
    clustering = fit_clusters(points, k=CLUSTERS_PER_CLASS * len(classes), seed=seed)
    rows, _ = assign(points, clustering)
    head = compete(
        points[train],
        [frozenset([str(name)]) for name in labels[train]],
        [str(name) for name in classes],
        multiple=False,
        seed=seed,
        clusters=ItemClusters(rows=rows[train], count=len(clustering)),
    )
    assert head is not None
    return head, rows


def answers(head: Head, points: FloatArray, rows: Rows) -> tuple[Names, FloatArray]:
    """Return the likeliest class of each point, and its probability."""
    predictions = head.predict(points, rows)
    best = predictions.probabilities.argmax(axis=1)
    return np.array(predictions.classes)[best], predictions.probabilities.max(axis=1)


def scores(truth: Names, found: Names) -> dict[str, float]:
    """Return every score of one split."""
    return {
        "accuracy": accuracy_score(truth, found),
        "balanced accuracy": balanced_accuracy_score(truth, found),
        "macro F1": f1_score(truth, found, average="macro"),
    }


def compare(
    title: str,
    points: FloatArray,
    features: FloatArray,
    labels: Names,
    splits: Sequence[tuple[Rows, Rows]],
) -> list[dict[str, Any]]:
    """Return the means over splits of the product's path and of the floor's."""
    ours, floor, kinds, errors = [], [], [], []
    for seed, (train, scored) in enumerate(splits):
        head, rows = train_head(points, labels, train, seed)
        kinds.append(str(head.kind.value))
        found, sureness = answers(head, points[scored], rows[scored])
        ours.append(scores(labels[scored], found))
        errors.append(calibration_error(found == labels[scored], sureness))
        floor.append(scores(labels[scored], floor_predicts(features, labels, train, scored)))
    winners = ", ".join(f"{kind} {kinds.count(kind)}" for kind in sorted(set(kinds)))
    return [
        {
            "task": title,
            "labels": len(splits[0][0]),
            "by": by,
            **{name: round(float(np.mean([one[name] for one in each])), 3) for name in each[0]},
            "calibration error": round(float(np.mean(error)), 3) if error else "",
            "heads": winners if error else "",
        }
        for by, each, error in (("ours", ours, errors), ("floor", floor, []))
    ]


def calibration_error(right: npt.NDArray[np.bool_], sureness: FloatArray, bins: int = 10) -> float:
    """Return the expected calibration error: |share right - mean probability| over equal bins."""
    of_bin = np.minimum((sureness * bins).astype(np.int64), bins - 1)
    return float(
        sum(
            abs(float(right[inside].mean()) - float(sureness[inside].mean())) * inside.mean()
            for inside in (of_bin == number for number in np.unique(of_bin))
        )
    )


def rand_index(points: FloatArray, labels: Names, k: int) -> tuple[float, float]:
    """Return mean and standard deviation over seeds of the adjusted Rand index of k-means."""
    found = []
    for seed in range(CLUSTER_SEEDS):
        clustering = fit_clusters(points, k=k, seed=seed)
        found.append(adjusted_rand_score(labels, assign(points, clustering)[0]))
    return float(np.mean(found)), float(np.std(found))


def learning_curve(
    points: FloatArray, labels: Names, splits: Sequence[tuple[Rows, Rows]], *, unsure_first: bool
) -> dict[int, float]:
    """Return accuracy by number of labels, given in a random order or the least sure first.

    Both start with the same random labels, whatever classes those happen to have.
    """
    found: dict[int, list[float]] = {size: [] for size in CURVE}
    for seed, (train, scored) in enumerate(splits):
        order = np.random.default_rng(seed).permutation(train)
        chosen, left = order[: CURVE[0]], order[CURVE[0] :]
        head, rows = train_head(points, labels, chosen, seed)
        for size, following in zip(CURVE, (*CURVE[1:], CURVE[-1]), strict=True):
            answered, _ = answers(head, points[scored], rows[scored])
            found[size].append(accuracy_score(labels[scored], answered))
            if following == size:
                break
            if unsure_first:
                left = left[np.argsort(answers(head, points[left], rows[left])[1], kind="stable")]
            more = following - len(chosen)
            chosen, left = np.append(chosen, left[:more]), left[more:]
            head, rows = train_head(points, labels, chosen, seed)
    return {size: round(float(np.mean(values)), 3) for size, values in found.items()}


def synthetic_crops(count: int, seed: int = 0) -> Iterator[Pixels]:
    """Yield gray crops of 40 to 100 pixels: blots of twelve shapes on a white background."""
    random = np.random.default_rng(seed)
    for index in range(count):
        kind = index % SYNTHETIC_CLASSES
        edge = int(random.integers(40, 100))
        crop = np.full((edge, edge), 250, np.uint8)
        centre = (edge // 2, edge // 2)
        axes = (max(2, edge * (2 + kind % 4) // 12), max(2, edge * (1 + kind % 3) // 12))
        cv2.ellipse(crop, centre, axes, float(random.uniform(0, 180)), 0, 360, 60 + 10 * kind, -1)
        for arm in range(kind // 3 * 2):
            angle = 2 * np.pi * arm / (kind // 3 * 2) + random.uniform(0, 0.3)
            reach = 0.45 * edge
            tip = (
                int(centre[0] + reach * np.cos(angle)),
                int(centre[1] + reach * np.sin(angle)),
            )
            cv2.line(crop, centre, tip, 90, 1 + kind % 2)
        noise = random.normal(0, 4, crop.shape)
        yield np.clip(crop + noise, 0, 255).astype(np.uint8)[..., None]


def synthetic_embeddings(count: int, width: int, seed: int = 0) -> FloatArray:
    """Return (count, width) float32 around twelve centres that are near enough to overlap."""
    random = np.random.default_rng(seed)
    centres = random.normal(0, SYNTHETIC_SPREAD, (SYNTHETIC_CLASSES, width)).astype(np.float32)
    points = np.empty((count, width), np.float32)
    random.standard_normal(out=points, dtype=np.float32)
    for index in range(SYNTHETIC_CLASSES):
        points[index::SYNTHETIC_CLASSES] += centres[index]
    return points


@contextmanager
def timed(into: dict[str, Any], name: str) -> Iterator[None]:
    """Write the seconds and the growth of the peak memory of a block."""
    before, started = peak_mb(), time.perf_counter()
    yield
    into[f"{name} s"] = round(time.perf_counter() - started, 2)
    into[f"{name} MB"] = round(peak_mb() - before)


def peak_mb() -> float:
    """Return the most memory this process ever had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def measure_images(embedder: Embedder, count: int) -> dict[str, Any]:
    """Return time and memory of everything for `count` crops made by code."""
    row: dict[str, Any] = {"images": count}
    labels = np.array([f"kind {index % SYNTHETIC_CLASSES}" for index in range(count)])
    batches, batch = [], []
    with timed(row, "embed"):
        for crop in synthetic_crops(count):
            batch.append(crop)
            if len(batch) == 64:
                batches.append(embedder.embed(batch))
                batch = []
        if batch:
            batches.append(embedder.embed(batch))
        embeddings = np.concatenate(batches)
    row["embed ms/image"] = round(1000 * row["embed s"] / count, 1)
    with timed(row, "scale"):
        points = scaling_of(embedder, embeddings).apply(embeddings)
    with timed(row, "cluster"):
        clustering = fit_clusters(points, k=SYNTHETIC_CLASSES, seed=0)
    train = np.arange(min(count // 2, 30 * SYNTHETIC_CLASSES))
    with timed(row, "train"):
        head, rows = train_head(points, labels, train, 0)
    with timed(row, "predict"):
        found, _ = answers(head, points, rows)
    row["accuracy"] = round(accuracy_score(labels[len(train) :], found[len(train) :]), 3)
    row["ARI"] = round(adjusted_rand_score(labels, assign(points, clustering)[0]), 3)
    return row


def measure_growth(count: int, width: int) -> dict[str, Any]:
    """Return what fits on `count` synthetic embeddings cost, beside scikit-learn's KMeans."""
    row: dict[str, Any] = {"embeddings": count}
    k = CLUSTERS_PER_CLASS * SYNTHETIC_CLASSES
    embeddings = synthetic_embeddings(count, width)
    row["data MB"] = round(embeddings.nbytes / 2**20)
    with timed(row, "scale"):
        points = fit_scaling(embeddings).apply(embeddings)
    with timed(row, "cluster"):
        ours = fit_clusters(points, k=k, seed=0)
    _, distances = assign(points, ours)
    with timed(row, "sklearn"), threadpool_limits(limits=1):
        theirs = KMeans(k, n_init=RUNS, random_state=0).fit(points)
    inertia = float(np.square(distances.astype(np.float64)).sum())
    row["time ratio"] = round(row["cluster s"] / max(row["sklearn s"], 1e-3), 2)
    row["inertia ratio"] = round(inertia / float(theirs.inertia_), 4)
    return row


def measure_growth_apart(count: int, width: int) -> dict[str, Any]:
    """Return `measure_growth` of a process of its own, whose peak memory nothing else raised."""
    command = [sys.executable, __file__, "--growth-of", str(count), str(width)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def scaling_of(embedder: Embedder, embeddings: FloatArray) -> Scaling:
    """Return the scaling that a project with this embedder would get."""
    return fit_scaling(embeddings, groups=GROUPS if embedder.name == NAME else None)


def measure_accuracy(
    embedder: Embedder, splits: int, *, curve: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return all that can be said about the annotated crops."""
    plankton, blood = read_crops("ndsb_plankton"), read_crops("bccd_cells")
    started = time.perf_counter()
    embedded = {"plankton": embedder.embed(plankton.pixels), "blood": embedder.embed(blood.pixels)}
    seconds = time.perf_counter() - started
    say("embedded")
    points = {name: scaling_of(embedder, each).apply(each) for name, each in embedded.items()}
    features = np.stack([hog_and_patterns(one) for one in plankton.pixels])
    halves = [split(plankton.labels, seed) for seed in range(splits)]
    rows = []
    for per_class in (16, 30):
        some = [split(plankton.labels, seed, per_class) for seed in range(splits)]
        title = f"plankton, 12 classes, {per_class} labels each"
        rows.extend(compare(title, points["plankton"], features, plankton.labels, some))
        say(title)
    title = "plankton or detritus"
    rows.extend(compare(title, points["plankton"], features, plankton.groups, halves))
    say(title)
    blood_features = np.stack([hog_and_patterns(one) for one in blood.pixels])
    some = [split(blood.labels, seed) for seed in range(splits)]
    rows.extend(compare("blood cells", points["blood"], blood_features, blood.labels, some))
    clusters = []
    for name, crops, peer in (
        ("plankton", plankton, features),
        ("blood", blood, blood_features),
    ):
        k = len(np.unique(crops.labels))
        mean, deviation = rand_index(points[name], crops.labels, k)
        floor = rand_index(StandardScaler().fit_transform(peer), crops.labels, k)[0]
        clusters.append(
            {
                "set": f"{name}, k-means",
                "k": k,
                "adjusted Rand index": round(mean, 3),
                "± over seeds": round(deviation, 3),
                "floor": round(floor, 3),
            }
        )
    say("clustered")
    found: dict[str, Any] = {
        "embedder": embedder.name,
        "sha256": embedder.sha256,
        "dimension": embedder.dimension,
        "splits": splits,
        "ms per image": round(1000 * seconds / (len(plankton.pixels) + len(blood.pixels)), 1),
        "heads": rows,
        "clusters": clusters,
    }
    if curve:
        found["curve"] = {
            name: learning_curve(points["plankton"], plankton.labels, halves, unsure_first=unsure)
            for name, unsure in (("random", False), ("least sure first", True))
        }
    return found


def against_targets(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each target with what was reached."""
    by_title = {row["task"]: row for row in found["heads"] if row["by"] == "ours"}
    by_title |= {row["set"]: row for row in found["clusters"]}
    return [
        {
            "target": f"{title}: {metric}",
            "wanted": wanted,
            "reached": by_title[title][metric],
            "known floor": KNOWN_FLOOR.get(title, ""),
            "good": "yes" if by_title[title][metric] >= wanted else "NO",
        }
        for title, (metric, wanted) in TARGETS.items()
    ]


def show(console: Console, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows that have the same keys as a table."""
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    console.print(table)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--embedder", default=NAME, help="a name or the path of a network")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--no-curve", action="store_true", help="leave the learning curve out")
    parser.add_argument("--scale", action="store_true", help="measure time and memory instead")
    parser.add_argument("--images", type=int, default=10_000, help="with --scale")
    parser.add_argument("--workers", type=int, default=1, help="threads that describe crops")
    parser.add_argument("--growth-of", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    # a regression that stops early is what a project gets as well
    warnings.simplefilter("ignore", ConvergenceWarning)
    if arguments.growth_of:
        print(json.dumps(measure_growth(*arguments.growth_of)))
        return
    console = Console()
    embedder = open_embedder(
        resolve_embedder(arguments.embedder),
        open_device(arguments.device),
        workers=arguments.workers,
    )
    if arguments.scale:
        images = measure_images(embedder, arguments.images)
        growth = [measure_growth_apart(count, embedder.dimension) for count in GROWTH]
        show(console, f"{embedder.name}: crops made by code", [images])
        show(console, "synthetic embeddings, k-means against scikit-learn's", growth)
        print(json.dumps({"embedder": embedder.name, "images": images, "growth": growth}))
        return
    if not SHARED.is_dir():
        raise SystemExit("../shared/data is not here: there is nothing to measure accuracy on.")
    found = measure_accuracy(
        embedder, arguments.splits, curve=not arguments.no_curve, say=console.log
    )
    show(console, f"{embedder.name}: half trained on, half scored", found["heads"])
    show(console, "clusters", found["clusters"])
    if "curve" in found:
        curves = [
            {"order": name} | {str(size): value for size, value in curve.items()}
            for name, curve in found["curve"].items()
        ]
        show(console, "accuracy by number of labels", curves)
    found["targets"] = against_targets(found)
    show(console, "targets", found["targets"])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
