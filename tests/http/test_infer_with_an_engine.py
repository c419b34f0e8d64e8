"""/api/v1/infer with a real engine and the built-in network behind it, all in this process."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from ml_backend.domain import LabelImage
from ml_backend.imaging.matching import match_instances
from ml_backend.imaging.samples import fluorescent_nuclei
from tests.infer_files import MEDIA_TYPES, READERS, array_in, masks_of, npy_text
from tests.infer_site import PICTURE, SHAPE, TRUTH, URL, Site, open_site
from tests.shared_data import SHARED

pytestmark = pytest.mark.unhurried


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Yield the two applications, joined."""
    with open_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
def expected(site: Site) -> LabelImage:
    """Return the masks that every way of asking must give."""
    masks = masks_of(site.infer(input_arrays=[npy_text(PICTURE)]), "json", SHAPE)
    (at_50, *_) = match_instances(TRUTH, masks)
    assert at_50.average_precision > 0.8
    return masks


def png() -> bytes:
    """Return the image as a PNG file."""
    return cv2.imencode(".png", PICTURE)[1].tobytes()


FORMS: dict[str, Callable[[Site, str], httpx.Response]] = {
    "array": lambda site, kind: site.infer(input_arrays=[npy_text(PICTURE)], format=kind),
    "nested lists": lambda site, kind: site.infer(input_arrays=[PICTURE.tolist()], format=kind),
    "channels first": lambda site, kind: site.infer(
        input_arrays=[npy_text(PICTURE[None])], format=kind
    ),
    "path": lambda site, kind: site.infer(image_paths=[str(site.root / "nuclei.png")], format=kind),
    "path in an artifact": lambda site, kind: site.infer(
        image_paths=["nuclei.png"], artifact=str(site.root), format=kind
    ),
    "address": lambda site, kind: site.infer(
        image_paths=[site.images.origin + "/nuclei.png"], format=kind
    ),
    "upload": lambda site, kind: site.upload(("nuclei.png", png()), format=kind),
    "NPY upload": lambda site, kind: site.upload(
        ("nuclei.npy", base64.b64decode(npy_text(PICTURE))), format=kind
    ),
}


@pytest.mark.parametrize("kind", list(READERS))
@pytest.mark.parametrize("form", list(FORMS))
def test_every_way_in_and_every_way_out_give_the_same_masks(
    site: Site, expected: LabelImage, form: str, kind: str
) -> None:
    answer = FORMS[form](site, kind)

    assert np.array_equal(masks_of(answer, kind, SHAPE), expected)


def test_json_tells_scores_diameter_and_model(site: Site, expected: LabelImage) -> None:
    told = site.upload(("my nuclei.png", png())).json()

    (item,) = told["items"]
    assert item["name"] == "my_nuclei.png"
    assert item["count"] == expected.max() == len(item["scores"])
    assert item["shape"] == list(SHAPE)
    assert all(0 <= score <= 1 for score in item["scores"])
    assert 8 < item["diameter"] < 40
    assert item["flows"] is None
    assert told["model"]["name"] == "nuclei-1"
    assert told["model"]["licence"] == "CC0-1.0"
    assert len(told["model"]["sha256"]) == 64
    assert "path" not in told["model"]


@pytest.mark.parametrize("nested", [False, True])
def test_flows_say_where_every_pixel_goes(site: Site, expected: LabelImage, nested: bool) -> None:
    answer = site.infer(input_arrays=[npy_text(PICTURE)], return_flows=True, json_safe=nested)

    (item,) = answer.json()["items"]
    read = np.asarray if nested else array_in
    flows = {name: read(value) for name, value in item["flows"].items()}
    assert np.array_equal(read(item["masks"]), expected)
    assert flows["hsv"].shape == (*SHAPE, 3)
    assert flows["xy"].shape == flows["final_positions"].shape == (2, *SHAPE)
    assert flows["cellprob"][expected > 0].mean() > flows["cellprob"][expected == 0].mean()
    for label in range(1, expected.max() + 1):
        mask = expected == label
        middle = np.argwhere(mask).mean(axis=0)[:, None]
        assert np.median(np.abs(flows["final_positions"][:, mask] - middle)) < 5


def test_flows_of_several_uploads_are_one_archive(site: Site, expected: LabelImage) -> None:
    answer = site.upload(("a.png", png()), ("../a.png", png()), format="tiff", return_flows="true")

    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        names = archive.namelist()
        assert len(names) == 10
        assert all("/" not in name and ".." not in name for name in names)
        for name in ("a_masks.tif", "a-2_masks.tif"):
            assert np.array_equal(READERS["tiff"](archive.read(name), SHAPE), expected)


def test_parameters_change_what_is_found(site: Site, expected: LabelImage) -> None:
    array = npy_text(PICTURE)

    typical = int(np.median(np.bincount(expected.ravel())[1:]))
    large = masks_of(site.infer(input_arrays=[array], min_size=typical), "json", SHAPE)
    sure = masks_of(site.infer(input_arrays=[array], score_threshold=0.9), "json", SHAPE)
    strict = masks_of(site.infer(input_arrays=[array], cellprob_threshold=4), "json", SHAPE)
    equalised = site.infer(input_arrays=[array], enable_clahe=True)

    assert 0 < large.max() < expected.max()
    assert sure.max() < expected.max()
    assert (strict > 0).sum() < (expected > 0).sum()
    assert equalised.status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "code", "sentence"),
    [
        ({"diameter": -1}, 400, "request.invalid", "diameter is -1"),
        ({"flow_threshold": "x"}, 400, "request.invalid", "flow_threshold is 'x'"),
        ({"format": "gif"}, 400, "request.invalid", "format is 'gif'"),
        ({"modell": "x"}, 400, "request.invalid", "no parameter 'modell'"),
        ({"model": "cpsam_v9"}, 422, "model.not_found", "no model or file 'cpsam_v9'"),
        ({"model": "/etc/passwd"}, 400, "request.invalid", "lies outside"),
        ({"plane": 3}, 422, "image.decode", "input_arrays[0]: The image has 1 plane"),
        ({"channels": [4]}, 422, "image.decode", "no channel 4"),
        ({"artifact": "nothing"}, 404, "request.not_found", "no dataset 'nothing'"),
        ({"input_arrays": ["AAAA"]}, 422, "image.decode", "input_arrays[0]: This is no NPY"),
        ({"input_arrays": [[[1, 2], [3]]]}, 422, "image.decode", "different lengths"),
        ({"input_arrays": []}, 400, "request.invalid", "either image_paths"),
        ({"input_arrays": None, "image_paths": ["/etc/passwd"]}, 400, "request.invalid", "[0]"),
        (
            {"input_arrays": None, "image_paths": ["http://169.254.1.1/x.png"]},
            422,
            "image.refused",
            "image_paths[0]: The image's host 169.254.1.1 has the private address",
        ),
        (
            {"input_arrays": None, "image_paths": ["/data/upload/1/x.png"]},
            400,
            "request.invalid",
            "lies outside",
        ),
    ],
)
def test_bad_input_is_one_sentence(
    site: Site, body: dict[str, Any], status: int, code: str, sentence: str
) -> None:
    answer = site.infer(**{"input_arrays": [[[1, 2], [3, 4]]], **body})

    told = answer.json()
    assert (answer.status_code, told["code"]) == (status, code), told
    assert sentence in told["detail"]
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_file_that_is_no_image_is_named(site: Site) -> None:
    answer = site.upload(("a.png", png()), ("notes.txt", b"<html></html>"))

    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("images 'notes.txt': The file is a web page")


def test_too_large_a_request_is_413(site: Site) -> None:
    answer = site.client.post(
        URL,
        content=(b" " * 1_000_000 for _ in range(101)),
        headers={"Content-Type": "application/json"},
    )

    assert answer.status_code == 413
    assert answer.json()["code"] == "request.too_large"


def test_every_image_of_many_is_answered_in_order(site: Site, expected: LabelImage) -> None:
    blank = np.zeros((40, 50), np.uint8)
    arrays = [npy_text(blank), npy_text(PICTURE), npy_text(np.rot90(PICTURE))]

    items = site.infer(input_arrays=arrays).json()["items"]

    assert [item["name"] for item in items] == ["array-1", "array-2", "array-3"]
    assert [item["shape"] for item in items] == [[40, 50], [180, 220], [220, 180]]
    assert items[0]["count"] == 0
    assert np.array_equal(array_in(items[1]["masks"]), expected)


def test_a_large_image_comes_back_in_every_format(site: Site) -> None:
    field, truth = fluorescent_nuclei(5, (500, 500), 60)
    array = npy_text(np.tile(field, (3, 3)))
    first = masks_of(site.infer(input_arrays=[array], diameter=22), "json", (1500, 1500))

    assert 8 * truth.max() < first.max() < 10 * truth.max()
    for kind in READERS:
        answer = site.infer(input_arrays=[array], diameter=22, format=kind)
        assert np.array_equal(masks_of(answer, kind, (1500, 1500)), first), kind


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(MEDIA_TYPES))
def test_an_image_of_17_megapixels_comes_back_in_every_format(site: Site, kind: str) -> None:
    content = large_image()

    answer = site.upload(("mosaic.png", content), format=kind)

    masks = masks_of(answer, kind, (4160, 4176))
    assert masks.max() > 3000


@pytest.mark.slow
def test_the_flows_of_17_megapixels_come_back(site: Site) -> None:
    answer = site.upload(("mosaic.png", large_image()), format="npy", return_flows="true")

    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        for name in archive.namelist():
            if name.endswith(".npy"):
                array = np.load(io.BytesIO(archive.read(name)))
                assert array.shape[-2:] == (4160, 4176)


def large_image() -> bytes:
    """Return 4160 x 4176 pixels as a PNG file: a real mosaic, or one that is made up."""
    path = SHARED / "large" / "images" / "u2os_mosaic_4k.png"
    if path.is_file():
        return path.read_bytes()
    field, _ = fluorescent_nuclei(5, (520, 696), 110)
    return cv2.imencode(".png", np.tile(field, (8, 6)))[1].tobytes()


def test_bodies_that_are_no_json_are_told_so(site: Site) -> None:
    for body in (b"", b"{", b"[]", b"\xff\xfe", b"nul"):
        answer = site.client.post(URL, content=body, headers={"Content-Type": "application/json"})

        assert (answer.status_code, answer.json()["code"]) == (400, "request.invalid")
        assert json.dumps(answer.json()["detail"])
