"""Which files of a dataset belong together, by their names alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_backend.errors import TrainingError
from ml_backend.training.dataset_pairs import Pairs, find_pairs, without_ending

NAMES = st.text("abcxyz0189_- äµ", min_size=1, max_size=12).filter(
    lambda name: not name.endswith(("_img", "_", "_cp")) and "_masks" not in name
)


def found(
    files: list[str], images: str | None = None, annotations: str | None = None
) -> list[tuple[str, str]]:
    return [(pair.image, pair.mask) for pair in pairs(files, images, annotations).pairs]


def pairs(files: list[str], images: str | None = None, annotations: str | None = None) -> Pairs:
    return find_pairs(files, images=images, annotations=annotations, where="/data/nuclei")


@pytest.mark.parametrize(
    ("files", "images", "annotations", "expected"),
    [
        # folders
        (["i/a.tif", "m/a.png"], "i/", "m/", [("i/a.tif", "m/a.png")]),
        (["i/a.tif", "m/a.png"], "./i", "m", [("i/a.tif", "m/a.png")]),
        (["i/x/a.tif", "m/x/a.tif"], "i/", "m/", [("i/x/a.tif", "m/x/a.tif")]),
        (["i/a.ome.tif", "m/a.tif"], "i/", "m/", [("i/a.ome.tif", "m/a.tif")]),
        (["i/a.tif", "m/a_masks.tif"], "i/", "m/", [("i/a.tif", "m/a_masks.tif")]),
        (["i/a_img.tif", "m/a_masks.tif"], "i/", "m/", [("i/a_img.tif", "m/a_masks.tif")]),
        (["d/a.tif", "d/a_masks.tif"], "d/", "d/", [("d/a.tif", "d/a_masks.tif")]),
        # patterns
        (["i/a.tif", "m/a_label.tif"], "i/*.tif", "m/*_label.tif", [("i/a.tif", "m/a_label.tif")]),
        (["a.tif", "a_m.tif"], "*.tif", "*_m.tif", [("a.tif", "a_m.tif")]),
        (["1/i.tif", "1/m.tif"], "*/i.tif", "*/m.tif", [("1/i.tif", "1/m.tif")]),
        (["i/a.png", "m/a.tif"], "i/*", "m/*", [("i/a.png", "m/a.tif")]),
        (["i/a.png", "m/a_m.tif"], "i/", "m/*_m.tif", [("i/a.png", "m/a_m.tif")]),
        (["i/a+(1).tif", "m/a+(1).tif"], "i/a+(*.tif", "m/a+(*.tif",
         [("i/a+(1).tif", "m/a+(1).tif")]),
        (["one.tif", "its.tif"], "one.tif", "its.tif", [("one.tif", "its.tif")]),
        # Cellpose's
        (["a.tif", "a_masks.tif"], None, None, [("a.tif", "a_masks.tif")]),
        (["a.TIF", "a_masks.PNG"], None, None, [("a.TIF", "a_masks.PNG")]),
        (["a.png", "a_seg.npy"], None, None, [("a.png", "a_seg.npy")]),
        (["a.jpg", "a_cp_masks.png"], None, None, [("a.jpg", "a_cp_masks.png")]),
        (["a_img.tif", "a_masks.tif"], None, None, [("a_img.tif", "a_masks.tif")]),
        (["a_img.tif", "a_img_masks.tif"], None, None, [("a_img.tif", "a_img_masks.tif")]),
        (["t/a.tif", "t/a_masks.tif", "b.tif"], "t", None, [("t/a.tif", "t/a_masks.tif")]),
        # somebody's masks count more than what Cellpose predicts beside them
        (["a.tif", "a_masks.tif", "a_seg.npy", "a_cp_masks.png"], None, None,
         [("a.tif", "a_masks.tif")]),
        (["a.tif", "a_seg.npy", "a_cp_masks.png"], None, None, [("a.tif", "a_seg.npy")]),
        # what programs write beside an image is no image
        (["a.tif", "a_masks.tif", "a_flows.tif", "a_cellprob.tif", "a_overlay.png"], None, None,
         [("a.tif", "a_masks.tif")]),
        # unless it has masks of its own and nothing it could be of
        (["b_overlay.png", "b_overlay_masks.png"], None, None,
         [("b_overlay.png", "b_overlay_masks.png")]),
        # everybody else's
        (["images/a.tif", "masks/a.tif"], None, None, [("images/a.tif", "masks/a.tif")]),
        (["Images/a.tif", "Labels/a.tif"], None, None, [("Images/a.tif", "Labels/a.tif")]),
    ],
)  # fmt: skip
def test_files_are_paired(
    files: list[str], images: str | None, annotations: str | None, expected: list[tuple[str, str]]
) -> None:
    assert found(files, images, annotations) == expected


def test_what_has_no_partner_is_named() -> None:
    said = " ".join(pairs(["i/a.tif", "i/b.tif", "m/a.tif", "m/c.tif"], "i/", "m/").remarks)

    assert "i/b.tif" in said
    assert "m/c.tif" in said
    assert "i/a.tif" not in said


def test_of_two_images_with_one_name_the_second_is_named_and_left_out() -> None:
    result = pairs(["a.png", "a.tif", "a_masks.tif"])

    assert [pair.image for pair in result.pairs] == ["a.png"]
    assert result.remarks == ("a.tif is left out: a.png has the same name.",)


@pytest.mark.parametrize(
    ("files", "images", "annotations", "said"),
    [
        ([], None, None, "looked for x_masks.tif"),
        (["a.tif", "b.tif"], None, None, "x_seg.npy"),
        (["train/a.tif", "train/a_masks.tif"], None, None, "name the folder train"),
        (["i/a.tif", "m/b.tif"], "i/", "m/", "i and m"),
        (["i/a.tif"], "i/*.tif", "m/*.tif", "it holds i/a.tif"),
        (["a.tif"], "../other/", "m/", "leads out of the dataset"),
        (["a.tif"], "/etc/", "m/", "leads out of the dataset"),
        (["a.tif"], "*/*.tif", "m/*.tif", "2 stars"),
        (["a.tif"], "*.tif", None, "nothing names their masks"),
        (["a.tif"], None, "m/", "images are not"),
    ],
)
def test_a_folder_without_pairs_is_refused_with_what_was_looked_for(
    files: list[str], images: str | None, annotations: str | None, said: str
) -> None:
    with pytest.raises(TrainingError) as refused:
        pairs(files, images, annotations)

    assert said in refused.value.message


@given(names=st.sets(NAMES, min_size=1, max_size=8), alone=st.sets(NAMES, max_size=3))
def test_a_pattern_finds_every_pair_and_nothing_else(names: set[str], alone: set[str]) -> None:
    files = [f"i/{name}.tif" for name in names | alone] + [f"m/{name}_l.png" for name in names]

    assert found(files, "i/*.tif", "m/*_l.png") == sorted(
        (f"i/{name}.tif", f"m/{name}_l.png") for name in names
    )


@given(names=st.sets(NAMES, min_size=1, max_size=8), alone=st.sets(NAMES, max_size=3))
def test_folders_pair_equal_names_whatever_their_endings(names: set[str], alone: set[str]) -> None:
    files = [f"i/{name}.jpg" for name in names | alone] + [f"m/{name}.npy" for name in names]

    assert set(found(files, "i", "m")) >= {(f"i/{name}.jpg", f"m/{name}.npy") for name in names}


@given(files=st.lists(st.text("ab_/.tifmasksgpnyeo-*", min_size=1, max_size=14), max_size=12))
def test_whatever_the_names_an_image_and_a_mask_are_used_once_at_most(files: list[str]) -> None:
    try:
        result = pairs(files)
    except TrainingError:
        return

    images = [pair.image for pair in result.pairs]
    assert len(set(images)) == len(images)
    assert not set(images) & {pair.mask for pair in result.pairs}
    assert {*images, *(pair.mask for pair in result.pairs)} <= set(files)


def test_endings_of_two_parts_are_endings() -> None:
    assert without_ending("well.1.ome.tif") == "well.1"
    assert without_ending("well.1.TIFF") == "well.1"
    assert without_ending("notes.txt") == "notes.txt"
