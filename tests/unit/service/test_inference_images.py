"""Images of a request: where they may come from, and what is said where they may not."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from ml_backend.datasets import DatasetSource, StoredDataset
from ml_backend.domain import FetchedFile, Image, LabelStudioAccess, SegmentationOptions
from ml_backend.errors import (
    BackendError,
    BadRequest,
    ImageDecodeError,
    ImageRefused,
    ImageTooLarge,
    NotFound,
)
from ml_backend.imaging.decode import decode_image
from ml_backend.service.dataset_sources import AllowedPaths
from ml_backend.service.inference_images import (
    MOST_LISTED,
    ImageSources,
    array_of_lists,
    is_address,
    name_of,
)
from ml_backend.service.inference_request import Place, SentArray, Upload

PIXELS = (np.arange(20 * 30).reshape(20, 30) % 251).astype(np.uint8)
ACCESS = LabelStudioAccess(origin="http://ls.example", token="secret")
DEFAULTS = SegmentationOptions()


@dataclass
class OneFile:
    """A fetcher that knows one address; it notes with what access it was asked."""

    path: Path
    asked: list[tuple[str, int | None, LabelStudioAccess]] = field(default_factory=list)

    def fetch(self, url: str, *, task_id: int | None, access: LabelStudioAccess) -> FetchedFile:
        """Return the file, or refuse."""
        self.asked.append((url, task_id, access))
        if url != "https://x.example/a.png":
            raise ImageRefused("That address is not allowed.")
        content = self.path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        return FetchedFile(path=self.path, sha256=digest, size=len(content))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the one folder whose files may be named, with an image in it."""
    folder = tmp_path / "allowed"
    (folder / "inner").mkdir(parents=True)
    for path in (folder / "a.png", folder / "inner" / "b.png", tmp_path / "secret.png"):
        cv2.imwrite(str(path), PIXELS)
    return folder


@pytest.fixture
def fetcher(root: Path) -> OneFile:
    """Return a fetcher."""
    return OneFile(root / "a.png")


@pytest.fixture
def sources(root: Path, fetcher: OneFile) -> ImageSources:
    """Return where images may come from."""
    datasets = {
        name: StoredDataset(number=1, name=name, source=DatasetSource(root=where), created_at=1.0)
        for name, where in (
            ("inside", str(root / "inner")),
            ("outside", str(root.parent)),
            ("archive", "https://x.example/a.zip"),
        )
    }

    def decode(file: FetchedFile, *, plane: int | None, channels: tuple[int, ...] | None) -> Image:
        return decode_image(file, plane=plane, channels=channels, max_megapixels=1)

    return ImageSources(
        fetcher=fetcher,
        access=ACCESS,
        decode=decode,
        paths=AllowedPaths([root]),
        find_dataset=datasets.get,
        max_bytes=100_000,
        max_megapixels=1,
    )


def place(where: Path | str) -> Place:
    """Return a source that is named."""
    return Place(text=str(where))


def sent(array: Any) -> SentArray:
    """Return an array as it is sent: nested lists, or the base64 of an NPY file."""
    if isinstance(array, np.ndarray):
        file = io.BytesIO()
        np.save(file, array)
        array = base64.b64encode(file.getvalue()).decode()
    return SentArray(json=msgspec.Raw(json.dumps(array).encode()))


def uploaded(path: Path) -> Upload:
    """Return a file as an upload."""
    content = path.read_bytes()
    return Upload(
        name=path.name, path=path, sha256=hashlib.sha256(content).hexdigest(), size=len(content)
    )


def test_every_way_leads_to_the_same_pixels(sources: ImageSources, root: Path) -> None:
    inner = sources.folder_of(str(root))
    ways = [
        (uploaded(root / "a.png"), None),
        (place("https://x.example/a.png"), None),
        (place(root / "a.png"), None),
        (place("a.png"), inner),
        (place("inner/b.png"), inner),
        (sent(PIXELS), None),
        (sent(PIXELS.tolist()), None),
    ]

    for source, folder in ways:
        sources.check(source, folder)
        image = sources.open(source, folder, DEFAULTS)
        assert np.array_equal(image.pixels[..., 0], PIXELS)
        assert image.pixels.dtype == np.uint8


def test_an_npy_file_is_an_image_too(sources: ImageSources, root: Path) -> None:
    np.save(root / "c.npy", PIXELS)

    for source in (place(root / "c.npy"), uploaded(root / "c.npy")):
        assert np.array_equal(sources.open(source, None, DEFAULTS).pixels[..., 0], PIXELS)


def test_only_label_studios_access_is_used_and_no_task(
    sources: ImageSources, fetcher: OneFile
) -> None:
    sources.open(place("https://x.example/a.png"), None, DEFAULTS)
    with pytest.raises(ImageRefused):
        sources.open(place("file:///etc/passwd"), None, DEFAULTS)

    assert fetcher.asked == [
        ("https://x.example/a.png", None, ACCESS),
        ("file:///etc/passwd", None, ACCESS),
    ]


@pytest.mark.parametrize(
    ("text", "error", "sentence"),
    [
        ("../secret.png", BadRequest, "leads out of the folder"),
        ("inner/../../secret.png", BadRequest, "leads out of the folder"),
        ("missing.png", BadRequest, "There is no file"),
        ("inner", ImageDecodeError, "is no file"),
        ("link.png", BadRequest, "lies outside of the folders"),
        ("pipe", ImageDecodeError, "is no file"),
        ("/etc/passwd", BadRequest, "lies outside of the folders"),
        ("a\0b.png", BadRequest, "lies outside of the folders"),
        ("x" * 5000, BadRequest, "lies outside of the folders"),
    ],
)
def test_a_path_that_must_not_be_read_is_one_sentence(
    sources: ImageSources, root: Path, text: str, error: type[BackendError], sentence: str
) -> None:
    (root / "link.png").symlink_to(root.parent / "secret.png")
    os.mkfifo(root / "pipe")

    for ask in (
        lambda: sources.check(place(text), root),
        lambda: sources.open(place(text), root, DEFAULTS),
    ):
        with pytest.raises(error, match=sentence):
            ask()


def test_a_relative_path_needs_a_folder(sources: ImageSources) -> None:
    with pytest.raises(BadRequest, match="name the folder that it is relative to as artifact"):
        sources.check(place("a.png"), None)


def test_without_allowed_folders_no_path_may_be_named(sources: ImageSources, root: Path) -> None:
    closed = ImageSources(**{**vars(sources), "paths": AllowedPaths([])})

    with pytest.raises(BadRequest, match="DATA_ROOTS"):
        closed.check(place(root / "a.png"), None)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(
    sources: ImageSources, root: Path
) -> None:
    (root / "large.png").write_bytes(bytes(100_001))

    with pytest.raises(ImageTooLarge, match="MAX_IMAGE_MB"):
        sources.check(place(root / "large.png"), None)


def test_an_artifact_is_a_dataset_or_a_folder(sources: ImageSources, root: Path) -> None:
    assert sources.folder_of(None) is None
    assert sources.folder_of(str(root / "inner")) == (root / "inner").resolve()
    assert sources.folder_of("inside") == (root / "inner").resolve()


@pytest.mark.parametrize(
    ("artifact", "error", "sentence"),
    [
        ("unknown", NotFound, "There is no dataset 'unknown'"),
        ("outside", BadRequest, "lies outside"),
        ("archive", BadRequest, "is an archive"),
        ("/etc", BadRequest, "lies outside"),
    ],
)
def test_other_artifacts_are_one_sentence(
    sources: ImageSources, artifact: str, error: type[BackendError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        sources.folder_of(artifact)


def test_an_artifact_that_is_a_file_is_refused(sources: ImageSources, root: Path) -> None:
    with pytest.raises(BadRequest, match="is no folder"):
        sources.folder_of(str(root / "a.png"))


def raw(text: str | bytes) -> msgspec.Raw:
    """Return JSON that is not read yet."""
    return msgspec.Raw(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    ("text", "shape", "kind"),
    [
        ("[[1, 2, 3], [4, 5, 6]]", (2, 3), "i"),
        ("[[0.5, 2], [4, 5]]", (2, 2), "f"),
        ("[[[1], [2]], [[3], [4]]]", (2, 2, 1), "i"),
        (" [ [1] ] ", (1, 1), "i"),
    ],
)
def test_nested_lists_are_arrays(text: str, shape: tuple[int, ...], kind: str) -> None:
    array = array_of_lists(raw(text))

    assert array.shape == shape
    assert array.dtype.kind == kind


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[]", "different lengths, or none"),
        ("[[1, 2], [3]]", "different lengths"),
        ("[[[1], [2, 3]]]", "different lengths"),
        ("[1, 2]", "something else than numbers"),
        ('[["a"]]', "something else than numbers"),
        ("[[true]]", "something else than numbers"),
        ("[[null]]", "something else than numbers"),
        ("[{}]", "something else than numbers"),
        (f"[[{10**30}]]", "something else than numbers"),
    ],
)
def test_other_lists_are_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ImageDecodeError, match=sentence):
        array_of_lists(raw(text))


def test_too_many_numbers_are_refused_before_they_are_read() -> None:
    with pytest.raises(ImageTooLarge, match="send the array as an NPY file"):
        array_of_lists(raw(b"[[" + b"," * MOST_LISTED))


@pytest.mark.parametrize("text", ['"bm90IG5weQ=="', '"no base64!"', '{"a": 1}', "3", "[[1,]]"])
def test_what_is_no_array_is_refused(sources: ImageSources, text: str) -> None:
    with pytest.raises(ImageDecodeError):
        sources.open(SentArray(json=raw(text)), None, DEFAULTS)


def test_a_plane_of_an_array_is_refused(sources: ImageSources) -> None:
    with pytest.raises(ImageDecodeError, match="no plane 1"):
        sources.open(sent(PIXELS), None, SegmentationOptions(plane=1))


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (place("https://x.example/dir/a%20b.tif?sig=secret"), "a b.tif"),
        (place("https://x.example/"), "image-3"),
        (place("http://[bad"), "image-3"),
        (place("data:image/png;base64,AAAA"), "image-3"),
        (place("/data/inner/b.png"), "b.png"),
        (place("inner\\c.png"), "c.png"),
        (sent([[1]]), "array-3"),
    ],
)
def test_images_are_called_by_what_they_are_named_with(source: Any, name: str) -> None:
    assert name_of(source, 2) == name


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("https://x", True), ("s3://b/c", True), (" data:,", True), ("/a:b", False), ("a.png", False)],
)
def test_addresses_are_told_from_paths(text: str, is_one: bool) -> None:
    assert is_address(text) is is_one
