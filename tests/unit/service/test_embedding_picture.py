"""Embeddings in the plane, and their picture by cluster and by label."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ml_backend.service.embedding_picture import (
    COLOURS,
    GAP,
    MARGIN,
    PANEL,
    TOP,
    UNLABELLED,
    WIDTH,
    embedding_picture,
)
from ml_backend.service.lettering import font, one_line, shortened
from ml_backend.service.projection import PRINCIPAL, T_SNE, Projection, projection

pytestmark = pytest.mark.unhurried

Picture = npt.NDArray[np.uint8]


def groups(count: int, size: int, *, seed: int = 0) -> npt.NDArray[np.float32]:
    """Return (count * size, 20) embeddings in well separated groups, one after the other."""
    random = np.random.default_rng(seed)
    centres = np.repeat(random.normal(0, 10, (count, 20)), size, axis=0)
    return (centres + random.normal(0, 0.3, centres.shape)).astype(np.float32)


def plane(count: int) -> Projection:
    """Return a projection of that many embeddings, scattered."""
    points = np.random.default_rng(0).random((count, 2), np.float32)
    return Projection(points=points, rows=np.arange(count), total=count, method=T_SNE)


def drawn(
    layout: Projection,
    clusters: Sequence[int | None],
    choices: Sequence[str | None],
    title: str = "project 1",
) -> Picture:
    """Return the picture, (Y, X, 3) uint8."""
    content = embedding_picture(layout, clusters, choices, title=title)
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def panels(picture: Picture) -> tuple[Picture, Picture]:
    """Return the insides of the two panels."""
    rows = slice(TOP + 2, TOP + PANEL - 2)
    right = MARGIN + PANEL + GAP
    return (
        picture[rows, MARGIN + 2 : MARGIN + PANEL - 2],
        picture[rows, right + 2 : right + PANEL - 2],
    )


def share_of(picture: Picture, colour: tuple[int, int, int]) -> int:
    """Return how many pixels have that colour."""
    return int((picture == np.array(colour, np.uint8)).all(axis=2).sum())


def test_groups_of_alike_embeddings_stay_together() -> None:
    layout = projection(groups(3, 20))

    assert layout.method == T_SNE
    centres = layout.points.reshape(3, 20, 2).mean(axis=1)
    own = np.linalg.norm(layout.points.reshape(3, 20, 2) - centres[:, None], axis=2).max()
    between = min(np.linalg.norm(centres[a] - centres[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    assert own < between / 2


def test_the_same_embeddings_and_seed_give_the_same_layout() -> None:
    embeddings = groups(4, 10)

    np.testing.assert_array_equal(projection(embeddings).points, projection(embeddings).points)


def test_of_many_embeddings_a_seeded_sample_is_laid_out() -> None:
    embeddings = groups(4, 25)

    layout = projection(embeddings, seed=3, largest=30)

    assert (len(layout.points), layout.total) == (30, 100)
    assert (np.diff(layout.rows) > 0).all()
    np.testing.assert_array_equal(layout.rows, projection(embeddings, seed=3, largest=30).rows)
    assert not np.array_equal(layout.rows, projection(embeddings, seed=4, largest=30).rows)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("size", [1, 2, 60])
def test_few_embeddings_are_laid_out_inside_the_picture(count: int, size: int) -> None:
    embeddings = np.random.default_rng(0).normal(size=(count, size)).astype(np.float32)

    layout = projection(embeddings)

    assert layout.points.shape == (count, 2)
    assert np.isfinite(layout.points).all()
    assert ((layout.points >= 0) & (layout.points <= 1)).all()


def test_embeddings_that_are_all_alike_are_laid_out_in_the_middle() -> None:
    alike = np.repeat(np.random.default_rng(0).normal(size=(1, 30)), 50, axis=0)

    layout = projection(alike.astype(np.float32))

    assert layout.method == PRINCIPAL
    np.testing.assert_allclose(layout.points, 0.5)


def test_duplicates_among_other_images_are_laid_out() -> None:
    embeddings = np.concatenate([groups(2, 10), np.repeat(groups(1, 1), 30, axis=0)])

    assert np.isfinite(projection(embeddings).points).all()


def test_clusters_are_coloured_left_and_labels_right() -> None:
    clusters = [0] * 30 + [1] * 30
    choices = ["a"] * 20 + ["b"] * 20 + ["c"] * 20

    left, right = panels(drawn(plane(60), clusters, choices))

    assert [share_of(left, colour) > 300 for colour in COLOURS[:4]] == [True, True, False, False]
    assert [share_of(right, colour) > 300 for colour in COLOURS[:4]] == [True, True, True, False]


def test_points_without_a_label_are_gray_below_the_others() -> None:
    here = np.full((2, 2), 0.5, np.float32)
    layout = Projection(points=here, rows=np.arange(2), total=2, method=PRINCIPAL)

    for choices in (["a", None], [None, "a"], ["", "a"]):
        _, right = panels(drawn(layout, [0, 0], choices))
        assert share_of(right, COLOURS[0]) > 100
        assert share_of(right, UNLABELLED) == 0


def test_before_any_clustering_all_points_are_gray() -> None:
    left, right = panels(drawn(plane(50), [None] * 25 + [-1] * 25, [None] * 50))

    assert share_of(left, UNLABELLED) > 500
    assert share_of(right, UNLABELLED) > 500
    assert sum(share_of(left, colour) + share_of(right, colour) for colour in COLOURS) == 0


def test_a_sample_takes_the_clusters_of_its_own_images() -> None:
    layout = Projection(
        points=np.array([[0.2, 0.2], [0.8, 0.8]], np.float32),
        rows=np.array([1, 3]),
        total=4,
        method=T_SNE,
    )

    left, _ = panels(drawn(layout, [0, 5, 0, 5], [None] * 4))

    assert share_of(left, COLOURS[0]) > 100  # cluster 5, the only one shown
    assert share_of(left, COLOURS[1]) == 0


def test_without_images_there_is_a_picture_that_says_so() -> None:
    left, right = panels(drawn(projection(np.zeros((0, 8), np.float32)), [], []))

    for panel in (left, right):
        assert 50 < (panel.min(axis=2) < 200).sum() < 4000


def test_one_image_makes_a_picture() -> None:
    left, _ = panels(drawn(projection(groups(1, 1)), [3], ["a"]))

    assert share_of(left, COLOURS[0]) > 50


def test_forty_clusters_are_told_apart_by_colour_and_shape() -> None:
    def mark(cluster: int) -> bytes:
        # the marks of the legend, five columns of eight
        column, row = divmod(cluster, 8)
        x = MARGIN + column * PANEL // 5
        y = TOP + PANEL + 14 + row * 22
        return legend[y : y + 22, x : x + 20].tobytes()

    legend = drawn(plane(400), [number % 40 for number in range(400)], [None] * 400)

    assert len({mark(cluster) for cluster in range(40)}) == 40


def test_hundreds_of_labels_still_make_a_picture_of_bearable_height() -> None:
    picture = drawn(plane(600), [0] * 600, [f"label {number}" for number in range(600)])

    assert picture.shape[1] == WIDTH
    assert picture.shape[0] < 1400


@settings(deadline=None, max_examples=25)
@given(
    names=st.lists(st.text(st.characters(), max_size=80) | st.none(), min_size=1, max_size=8),
    title=st.text(st.characters(), max_size=300),
)
def test_any_text_makes_a_picture(names: list[str | None], title: str) -> None:
    content = embedding_picture(plane(len(names)), [0] * len(names), names, title=title)

    assert content.startswith(b"\x89PNG")


def test_long_names_are_cut_to_their_room() -> None:
    long = "echinoderm_larva_seastar_brachiolaria, copepod_cyclopoid_oithona_eggs"

    for middle in (False, True):
        cut = shortened(long, 200, 14, middle=middle)
        assert font(14).getlength(cut) <= 200 < font(14).getlength(long)
        assert cut.startswith("echinoderm")
        assert cut.endswith("eggs") is middle
    assert shortened("short", 200, 14) == "short"
    assert shortened(long, 0, 14) == "…"


def test_what_cannot_be_drawn_is_left_out_of_a_name() -> None:
    assert one_line("a\nb\t\x00c \ud800d") == "a b c ?d"
