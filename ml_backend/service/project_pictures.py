"""The pictures of what a project's images were found to be: all at once, and cluster by cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ml_backend.domain import Pixels
from ml_backend.service.contact_sheet import contact_sheet
from ml_backend.service.embedding_picture import embedding_picture
from ml_backend.service.projection import projection

EMBEDDING_PICTURE = "embedding.png"
MOST_SHEETS = 64  # clusters, the largest first
IMAGES_PER_SHEET = 48

Item = tuple[int, int]
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


def sheet_name(cluster: int) -> str:
    """Return the file name of a cluster's contact sheet."""
    return f"cluster-{cluster}.png"


def project_pictures(
    *,
    items: Sequence[Item],
    points: FloatArray,
    clusters: IntArray,
    distances: FloatArray,
    chosen: Mapping[Item, str],
    thumbnail: Callable[[Item], Pixels | None],
    title: str,
    go_on: Callable[[], None] = lambda: None,
) -> dict[str, bytes]:
    """Return PNG files by name: the embedding in a plane, and a contact sheet of each cluster.

    Args:
        items: (N,) task of each image and number of the object in it, 0 = the whole image.
        points: (N, D) float32, scaled.
        clusters: (N,) identity of each image's cluster, negative for none.
        distances: (N,) to the cluster's centre; what is nearest comes first on its sheet.
        chosen: what people chose.
        thumbnail: returns the pixels of an item, None where they are not to be had.
        title: of the first picture, and the beginning of the others'.
        go_on: called before each picture; ends everything by raising.
    """
    go_on()
    labels = [chosen.get(item) for item in items]
    pictures = {
        EMBEDDING_PICTURE: embedding_picture(
            projection(points), clusters.tolist(), labels, title=title
        )
    }
    numbers, sizes = np.unique(clusters[clusters >= 0], return_counts=True)
    for number in numbers[np.argsort(-sizes, kind="stable")][:MOST_SHEETS].tolist():
        go_on()
        members = np.flatnonzero(clusters == number)
        members = members[np.argsort(distances[members], kind="stable")]
        shown = [
            (pixels, _caption(items[index], labels[index]))
            for index in members[:IMAGES_PER_SHEET].tolist()
            if (pixels := thumbnail(items[index])) is not None
        ]
        pictures[sheet_name(number)] = contact_sheet(
            [pixels for pixels, _ in shown],
            [caption for _, caption in shown],
            title=f"{title}: cluster {number}",
            total=len(members),
            # cells of one image have one scale, crops of plankton would become specks
            common_scale=any(number for _, number in items),
        )
    return pictures


def _caption(item: Item, label: str | None) -> str:
    task_id, number = item
    name = f"task {task_id}, {number}" if number else f"task {task_id}"
    return name if label is None else f"{name}\n{label}"
