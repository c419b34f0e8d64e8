"""`client.infer`: images of every kind there, masks back."""

from __future__ import annotations

import base64
import hashlib
import io
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import numpy.typing as npt
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.responses import Response, StreamingResponse

from ml_backend.client import Client, Image, ModelUsed, ServerPath
from ml_backend.client.arrays import decode_npy, encode_npy, encode_npy_text
from ml_backend.client.images import MAX_BATCH, MAX_BATCH_BYTES, batches
from ml_backend.errors import BadRequest, ImageDecodeError, ServerError
from tests.scripted_api import Asked, ScriptedApi, answered, refused

INFER = "POST /api/v1/infer"
MODEL = {"name": "nuclei-1", "architecture": "residual-unet", "sha256": "0" * 64, "licence": "CC0"}


def item(masks: npt.NDArray[Any], **more: Any) -> dict[str, Any]:
    """Return what the server says of one image."""
    count = int(masks.max(initial=0))
    return {
        "name": "image",
        "masks": encode_npy_text(masks),
        "shape": list(masks.shape),
        "count": count,
        "scores": [0.5] * count,
        "diameter": 12.5,
        "notes": ["The first plane was taken."],
        "flows": None,
        **more,
    }


def echoing(asked: Asked) -> Response:
    """Answer each array with itself as masks."""
    arrays = [
        np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)
        for text in asked.content["input_arrays"]
    ]
    items = [item(array.astype(np.int32), name=f"{n}") for n, array in enumerate(arrays)]
    return Response(orjson.dumps({"items": items, "model": MODEL}), media_type="application/json")


def form(asked: Asked) -> tuple[dict[str, str], list[tuple[str, bytes]]]:
    """Return the fields and files of a form, as the standard library reads it."""
    import email

    head = f"Content-Type: {asked.headers['content-type']}\r\n\r\n".encode()
    fields, files = {}, []
    for part in email.message_from_bytes(head + asked.body).get_payload():
        content = part.get_payload(decode=True)
        if part.get_filename() is None:
            fields[part.get_param("name", header="content-disposition")] = content.decode()
        else:
            assert part.get_param("name", header="content-disposition") == "images"
            files.append((part.get_filename(), content))
    return fields, files


# Arrays


ARRAYS = hnp.arrays(
    st.one_of(
        hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(), hnp.floating_dtypes(sizes=(16, 32, 64))
    ),
    hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=7),
)


@given(array=ARRAYS, is_turned=st.booleans())
def test_arrays_survive_the_way_there(array: npt.NDArray[Any], is_turned: bool) -> None:
    array = array.T if is_turned else array  # not in C order

    arrived = decode_npy(encode_npy(array))

    assert arrived.dtype == array.dtype
    assert np.array_equal(arrived, array, equal_nan=array.dtype.kind == "f")


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    labels=st.lists(
        hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.integers(0, 3)),
        min_size=1,
        max_size=3,
    )
)
def test_masks_survive_the_way_back(
    client: Client, api: ScriptedApi, labels: list[npt.NDArray[np.int32]]
) -> None:
    api.on(INFER, echoing)

    found = client.infer(labels)

    assert len(found) == len(labels)
    for result, expected in zip(found, labels, strict=True):
        assert result.masks.dtype == np.int32
        assert result.masks.flags.writeable
        assert np.array_equal(result.masks, expected)
        assert result.count == len(result.scores) == expected.max()


def test_what_is_found_has_its_facts(client: Client, api: ScriptedApi) -> None:
    api.on(INFER, echoing)

    (found,) = client.infer(np.eye(3, dtype=np.uint8))

    assert (found.diameter, found.notes) == (12.5, ("The first plane was taken.",))
    assert found.model == ModelUsed(
        name="nuclei-1", architecture="residual-unet", sha256="0" * 64, licence="CC0"
    )
    assert found.flows is None
    assert "masks" not in repr(found), "a picture is no text"


def test_flows_are_arrays(client: Client, api: ScriptedApi) -> None:
    hsv = np.zeros((3, 3, 3), np.uint8)
    flows = {
        "hsv": encode_npy_text(hsv),
        "xy": encode_npy_text(np.ones((2, 3, 3), np.float32)),
        "cellprob": encode_npy_text(np.ones((3, 3), np.float32)),
        "final_positions": None,
    }
    api.on(
        INFER, answered({"items": [item(np.eye(3, dtype=np.int32), flows=flows)], "model": MODEL})
    )

    (found,) = client.infer(np.eye(3, dtype=np.uint8), return_flows=True)

    assert api.asked[0].content["return_flows"] is True
    assert found.flows is not None
    assert found.flows.xy is not None
    assert found.flows.xy.shape == (2, 3, 3)
    assert np.array_equal(found.flows.hsv, hsv)
    assert found.flows.final_positions is None


@pytest.mark.parametrize(
    "array",
    [
        np.array([[object()]]),
        np.array([["a"]]),
        np.zeros((2, 2), np.complex64),
        np.zeros(3),
        np.zeros((0, 4)),
        np.zeros((1, 2, 3, 4)),
    ],
)
def test_what_is_no_image_is_not_sent(
    client: Client, api: ScriptedApi, array: npt.NDArray[Any]
) -> None:
    with pytest.raises(BadRequest, match="is no image"):
        client.infer(array)

    assert api.asked == []


@pytest.mark.parametrize("thing", [[[1, 2], [3, 4]], [None], [b"bytes"]])
def test_other_things_are_refused(client: Client, thing: Any) -> None:
    with pytest.raises(BadRequest, match="is no image"):
        client.infer(thing)


@pytest.mark.parametrize(
    "masks",
    ["not base64!", "", encode_npy_text(np.zeros(3)), base64.b64encode(b"\x93NUMPY").decode()],
)
def test_masks_that_are_none_are_a_sentence(client: Client, api: ScriptedApi, masks: str) -> None:
    broken = {**item(np.eye(2, dtype=np.int32)), "masks": masks}
    api.on(INFER, answered({"items": [broken], "model": MODEL}))

    with pytest.raises(ServerError):
        client.infer(np.eye(2, dtype=np.uint8))


def test_an_array_with_a_pickle_is_never_loaded() -> None:
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)

    with pytest.raises(ServerError, match="cannot be read"):
        decode_npy(file.getvalue())


def test_an_answer_for_other_images_is_a_sentence(client: Client, api: ScriptedApi) -> None:
    api.on(INFER, answered({"items": [], "model": MODEL}))

    with pytest.raises(ServerError, match="0 of 1 images"):
        client.infer(np.eye(2))


# Files, addresses, places on the server


def test_files_are_uploaded_with_their_options(
    client: Client, api: ScriptedApi, tmp_path: Path
) -> None:
    files = [tmp_path / name for name in ("a b.tif", "ü.png")]
    for number, path in enumerate(files):
        path.write_bytes(bytes([number, 0, 255]) * 10)
    api.on(INFER, answered({"items": [item(np.eye(2, dtype=np.int32))] * 2, "model": MODEL}))

    client.infer(
        [files[0], str(files[1])],
        model="3f2a91c0",
        diameter=30.5,
        niter=None,
        enable_clahe=True,
        channels=(0, 2),
    )

    fields, uploaded = form(api.asked[0])
    assert fields == {
        "model": "3f2a91c0",
        "diameter": "30.5",
        "enable_clahe": "true",
        "channels": "[0, 2]",
        "return_flows": "false",
    }
    assert [content for _, content in uploaded] == [path.read_bytes() for path in files]
    assert uploaded[0][0] == "a b.tif"


def test_addresses_and_places_are_named(client: Client, api: ScriptedApi) -> None:
    api.on(INFER, answered({"items": [item(np.eye(2, dtype=np.int32))] * 3, "model": MODEL}))

    client.infer(
        ["https://images.example/1.tif", ServerPath("/data/2.tif"), ServerPath("3.tif")],
        artifact="/data",
    )

    assert api.asked[0].content == {
        "image_paths": ["https://images.example/1.tif", "/data/2.tif", "3.tif"],
        "artifact": "/data",
        "return_flows": False,
    }


def test_a_file_that_is_not_there_is_a_sentence(client: Client, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"missing\.tif cannot be read \(No such file"):
        client.infer(tmp_path / "missing.tif")


def test_an_option_that_is_not_there_is_a_sentence(client: Client) -> None:
    with pytest.raises(BadRequest, match=r"no option 'diametre'.*diameter"):
        client.infer(np.eye(2), diametre=3)  # type: ignore[call-arg]


def test_a_refused_image_is_our_error(client: Client, api: ScriptedApi) -> None:
    api.on(INFER, refused(422, "image.decode", "a.tif is no readable image."))

    with pytest.raises(ImageDecodeError, match=r"a\.tif"):
        client.infer(np.eye(2))


def test_an_upload_is_sent_again_from_its_beginning(
    client: Client, api: ScriptedApi, tmp_path: Path
) -> None:
    (tmp_path / "a.tif").write_bytes(b"pixels" * 1000)
    api.on(
        INFER,
        refused(503, "engine.unavailable"),
        answered({"items": [item(np.eye(2, dtype=np.int32))], "model": MODEL}),
    )

    client.infer(tmp_path / "a.tif")

    first, second = (form(asked)[1] for asked in api.asked)
    assert first == second == [("a.tif", b"pixels" * 1000)]


def small(number: int) -> npt.NDArray[np.uint8]:
    """Return an array that is known by its number."""
    return np.full((2, 2), number, np.uint8)


def sizes(images: Iterator[Any]) -> list[int]:
    """Return how many images are in each request."""
    return [len(batch.images) for batch in batches(images)]


def test_images_travel_in_small_groups_of_one_kind(tmp_path: Path) -> None:
    large = np.zeros(MAX_BATCH_BYTES // 4 * 3, np.uint8).reshape(-1, 1000)
    file = tmp_path / "a.tif"
    file.write_bytes(b"x")
    images: list[Image] = [small(1), small(2), file, "http://a/b", small(3), large, large, small(4)]

    assert sizes(iter(images)) == [2, 1, 1, 2, 2]
    assert sizes(small(n) for n in range(MAX_BATCH * 2 + 1)) == [MAX_BATCH, MAX_BATCH, 1]


def test_results_come_before_later_images_are_looked_at(client: Client, api: ScriptedApi) -> None:
    api.on(INFER, echoing)
    taken = []

    def many() -> Iterator[npt.NDArray[np.uint8]]:
        for number in range(100):
            taken.append(number)
            yield small(number % 3)

    results = client.infer_each(many())
    first = next(results)

    assert first.masks.max() == 0
    assert len(taken) <= MAX_BATCH + 1
    assert [int(result.masks.max()) for result in results] == [n % 3 for n in range(1, 100)]


# Answers as files


def test_an_answer_is_written_to_a_file(client: Client, api: ScriptedApi, tmp_path: Path) -> None:
    api.on(INFER, lambda _: Response(b"II*\0", media_type="image/tiff"))

    written = client.infer_file(np.eye(2), tmp_path / "new" / "masks.tif", format="tiff")

    assert written.read_bytes() == b"II*\0"
    assert api.asked[0].content["format"] == "tiff"
    assert [path.name for path in written.parent.iterdir()] == ["masks.tif"]


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('attachment; filename="cells_masks.tif"', "cells_masks.tif"),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename="C:\\\\Users\\\\x.tif"', "x.tif"),
        ('attachment; filename=".bashrc"', "bashrc"),
        ('attachment; filename=".."', "masks.tif"),
        ("attachment; filename*=utf-8''a%2Fb%20c.tif", "b c.tif"),
        (None, "masks.tif"),
    ],
)
def test_a_folder_gets_the_servers_name_and_never_its_path(
    client: Client, api: ScriptedApi, tmp_path: Path, disposition: str | None, name: str
) -> None:
    headers = {} if disposition is None else {"content-disposition": disposition}
    api.on(INFER, lambda _: Response(b"masks", headers=headers))
    folder = tmp_path / "in" / "here"
    folder.mkdir(parents=True)

    written = client.infer_file(np.eye(2), folder)

    assert written == folder / name
    assert [path.name for path in folder.iterdir()] == [name]


def test_what_breaks_off_leaves_the_file_as_it_was(
    client: Client, api: ScriptedApi, tmp_path: Path
) -> None:
    broken = Response(b"half", 200)
    broken.headers["content-length"] = "100"
    api.on(INFER, lambda _: broken)
    target = tmp_path / "masks.tif"
    target.write_bytes(b"old")

    with pytest.raises(ServerError, match="broke the connection off"):
        client.infer_file(np.eye(2), target)

    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_where_nothing_can_be_written_is_a_sentence(
    client: Client, api: ScriptedApi, tmp_path: Path
) -> None:
    api.on(INFER, lambda _: Response(b"masks"))
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(BadRequest, match="cannot be written"):
        client.infer_file(np.eye(2), tmp_path / "file" / "masks.tif")


@pytest.mark.parametrize(
    ("images", "format", "reason"),
    [
        ([np.eye(2)], "bmp", "one of npy, png"),
        ([], "tiff", "at least one image"),
        ([np.eye(2), Path("a.tif")], "tiff", "of one kind"),
    ],
)
def test_files_that_cannot_be_made_are_not_asked_for(
    client: Client, api: ScriptedApi, images: list[Any], format: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(BadRequest, match=reason):
        client.infer_file(images, tmp_path / "x", format=format)

    assert api.asked == []


# Large ones


def most_held_during(work: Callable[[], object]) -> int:
    """Return the most bytes that objects made meanwhile held at once, on both sides together."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


LARGE = 300_000_000


@pytest.mark.unhurried
def test_a_large_file_is_uploaded_piece_by_piece(
    client: Client, api: ScriptedApi, tmp_path: Path
) -> None:
    file = tmp_path / "large.tif"
    with file.open("wb") as writing:
        writing.truncate(LARGE)
    api.on(INFER, answered({"items": [item(np.eye(2, dtype=np.int32))], "model": MODEL}))

    held = most_held_during(lambda: client.infer(file))

    assert api.asked[0].size > LARGE
    assert held < LARGE / 10


@pytest.mark.unhurried
def test_a_large_answer_is_written_piece_by_piece(
    client: Client, api: ScriptedApi, tmp_path: Path
) -> None:
    piece = bytes(range(256)) * 4096

    def pieces() -> Iterator[bytes]:
        for _ in range(LARGE // len(piece)):
            yield piece

    api.on(INFER, lambda _: StreamingResponse(pieces()))

    target = tmp_path / "masks.npy"
    held = most_held_during(lambda: client.infer_file(np.eye(2), target, format="npy"))

    with target.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    assert digest == hashlib.sha256(piece * (LARGE // len(piece))).hexdigest()
    assert held < LARGE / 10


@pytest.mark.unhurried
def test_masks_of_a_whole_slide_field_arrive(client: Client, api: ScriptedApi) -> None:
    masks = np.arange(4160 * 4176, dtype=np.int32).reshape(4160, 4176) % 5472
    scores = [0.5] * 5471
    api.on(INFER, answered({"items": [item(masks, scores=scores)], "model": MODEL}))

    (found,) = client.infer(small(1))

    assert np.array_equal(found.masks, masks)
    assert found.count == 5471
