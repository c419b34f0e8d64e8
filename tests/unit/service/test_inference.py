"""Whole requests with a fake network: every kind of answer, errors that name images, limits."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

from ml_backend.domain import (
    BlockOfPositions,
    Component,
    Flows,
    Image,
    LabelStudioAccess,
    Priority,
    Segmentation,
    SegmentationOptions,
    Urgency,
    priority_now,
)
from ml_backend.errors import (
    BackendError,
    BadRequest,
    EngineError,
    ImageDecodeError,
    ImageError,
    ModelNotFound,
    OutOfMemory,
    RequestTooLarge,
)
from ml_backend.formats.mask_files import MaskFormat
from ml_backend.imaging.decode import decode_image
from ml_backend.service.dataset_sources import AllowedPaths
from ml_backend.service.inference import Inference, InferenceAnswer
from ml_backend.service.inference_images import ImageSources
from ml_backend.service.inference_request import InferenceRequest, read_json_request
from tests.fakes import ManualClock
from tests.unit.service.conftest import COMPONENT, FakeFetcher


@dataclass
class TwoSquares:
    """Finds a sure and an unsure square in every image, or fails as chosen."""

    failure: BaseException | None = None
    seen: list[tuple[SegmentationOptions, Component, Priority]] = field(default_factory=list)

    def segment(
        self,
        image: Image,
        options: SegmentationOptions,
        *,
        component: Component,
        priority: Urgency,
    ) -> Segmentation:
        """Return the squares."""
        self.seen.append((options, component, priority_now(priority)))
        if self.failure is not None:
            raise self.failure
        labels = np.zeros((image.height, image.width), np.int32)
        labels[1:4, 2:6], labels[5:9, 5:9] = 1, 2
        return Segmentation(
            labels=labels,
            scores=np.array([0.9, 0.3], np.float32),
            diameter=3.51234,
            notes=("A note of the network.",),
        )

    def segment_with_flows(
        self,
        image: Image,
        options: SegmentationOptions,
        *,
        component: Component,
        priority: Urgency,
    ) -> tuple[Segmentation, Flows]:
        """Return the squares and flows to the right."""
        found = self.segment(image, options, component=component, priority=priority)
        shape = found.labels.shape
        xy = np.stack([np.zeros(shape), np.arange(shape[1]) * np.ones(shape)]).astype(np.float32)

        def ends() -> Iterator[BlockOfPositions]:
            half = shape[0] // 2
            for rows in (slice(0, half), slice(half, shape[0])):
                here = np.indices(shape, dtype=np.int32)[:, rows]
                yield BlockOfPositions(rows=rows, columns=slice(0, shape[1]), ends=here + 1)

        return found, Flows(xy=xy, cell_probability=xy[1] - 5, final_positions=ends)


SQUARES = (
    TwoSquares()
    .segment(
        Image(pixels=np.zeros((10, 12, 1), np.uint8), sha256=""),
        SegmentationOptions(),
        component=COMPONENT,
        priority=Priority.BATCH,
    )
    .labels
)


@pytest.fixture
def clock() -> ManualClock:
    """Return a clock that stands still."""
    return ManualClock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an allowed folder with two images, one of them called so that names collide."""
    allowed = tmp_path / "allowed"
    (allowed / "more").mkdir(parents=True)
    for name in ("a.png", "more/A.png"):
        cv2.imwrite(str(allowed / name), np.full((10, 12), 7, np.uint8))
    (allowed / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    return allowed


@pytest.fixture
def inference(tmp_path: Path, folder: Path, clock: ManualClock) -> Inference:
    """Return what answers, with a fake network."""

    def choose(name: str) -> Component:
        if name == "unknown":
            raise ModelNotFound("There is no model 'unknown'.")
        return replace(COMPONENT, path="/secret/place")

    work = tmp_path / "work"
    work.mkdir()
    return Inference(
        sources=ImageSources(
            fetcher=FakeFetcher(),
            access=LabelStudioAccess(origin=None),
            decode=lambda file, plane, channels: decode_image(file, max_megapixels=1),
            paths=AllowedPaths([folder]),
            find_dataset=lambda name: None,
            max_bytes=100_000,
            max_megapixels=1,
        ),
        segmenter=TwoSquares(),
        choose_model=choose,
        folder=work,
        budget_s=100.0,
        clock=clock,
    )


Ask = Callable[..., InferenceAnswer]


def request_of(folder: Path, *names: str, **more: Any) -> InferenceRequest:
    """Return a request for images of the folder; a 10 x 12 array where no name is given."""
    arrays = [] if names else [np.zeros((10, 12), int).tolist()]
    body = {"image_paths": list(names), "input_arrays": arrays, "artifact": str(folder), **more}
    return read_json_request(json.dumps(body).encode())


@pytest.fixture
def ask(inference: Inference, folder: Path, clock: ManualClock) -> Ask:
    """Return what asks for images of the folder and closes nothing."""

    def ask(*names: str, segmenter: TwoSquares | None = None, **more: Any) -> InferenceAnswer:
        chosen = replace(inference, segmenter=segmenter) if segmenter else inference
        request = request_of(folder, *names, **more)
        with chosen.open_work() as work:
            return chosen.infer(request, work, arrived_at=clock())

    return ask


def content(answer: InferenceAnswer) -> bytes:
    """Return all of an answer, whose size it must have."""
    whole = b"".join(answer.pieces())
    assert len(whole) == answer.size
    assert answer.file.closed
    return whole


def files_in(answer: InferenceAnswer) -> dict[str, bytes]:
    """Return the files of an archive by name."""
    with zipfile.ZipFile(io.BytesIO(content(answer))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def array_of(text: str) -> np.ndarray:
    """Return the array in the base64 of an NPY file."""
    return np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)


def test_json_has_masks_scores_notes_and_the_model(ask: Ask) -> None:
    answer = ask("a.png", "more/A.png", score_threshold=0.5)

    told = json.loads(content(answer))
    first, second = told["items"]
    masks = array_of(first.pop("masks"))
    assert answer.media_type == "application/json"
    assert masks.dtype == np.uint16
    assert np.array_equal(masks, np.where(SQUARES == 1, 1, 0))
    assert first == {
        "name": "a.png",
        "shape": [10, 12],
        "count": 1,
        "scores": [0.9],
        "diameter": 3.51,
        "notes": ["A note of the network."],
        "flows": None,
    }
    assert second["name"] == "A.png"
    assert told["model"] == {
        "name": "fake-1",
        "architecture": "residual-unet",
        "sha256": "0" * 64,
        "licence": "CC0-1.0",
        "diameter": None,
    }


@pytest.mark.parametrize("nested", [False, True])
def test_json_has_flows_when_asked(ask: Ask, nested: bool) -> None:
    told = json.loads(content(ask("a.png", return_flows=True, json_safe=nested)))

    (item,) = told["items"]
    read = np.asarray if nested else array_of
    flows = {name: read(value) for name, value in item["flows"].items()}
    assert np.array_equal(read(item["masks"]), SQUARES)
    assert flows["hsv"].shape == (10, 12, 3)
    assert flows["xy"].shape == (2, 10, 12)
    assert flows["xy"][1, 3].tolist() == list(range(12))
    assert np.array_equal(flows["cellprob"], flows["xy"][1] - 5)
    assert np.array_equal(flows["final_positions"], np.indices((10, 12)) + 1)


READERS: dict[str, Callable[[bytes], Any]] = {
    "npy": lambda data: np.load(io.BytesIO(data)),
    "png": lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED),
    "tiff": lambda data: tifffile.imread(io.BytesIO(data)),
    "roi": lambda data: zipfile.ZipFile(io.BytesIO(data)).namelist(),
    "geojson": lambda data: len(json.loads(data)["features"]),
    "coco": lambda data: [one["label"] for one in json.loads(data)["annotations"]],
}
WANTED: dict[str, Any] = {
    "npy": SQUARES,
    "png": SQUARES,
    "tiff": SQUARES,
    "roi": ["0001.roi", "0002.roi"],
    "geojson": 2,
    "coco": [1, 2],
}
ENDINGS = {
    "npy": "_masks.npy",
    "png": "_masks.png",
    "tiff": "_masks.tif",
    "roi": "_rois.zip",
    "geojson": "_masks.geojson",
    "coco": "_coco.json",
}


@pytest.mark.parametrize("kind", list(READERS))
def test_one_image_is_one_file(ask: Ask, kind: str) -> None:
    answer = ask("a.png", format=kind)

    assert answer.file_name == "a" + ENDINGS[kind]
    assert np.array_equal(READERS[kind](content(answer)), WANTED[kind])


@pytest.mark.parametrize("kind", [kind for kind in READERS if kind != "coco"])
def test_several_images_are_an_archive_with_a_file_each(ask: Ask, kind: str) -> None:
    answer = ask("a.png", "more/A.png", format=kind)

    files = files_in(answer)
    assert (answer.media_type, answer.file_name) == ("application/zip", "masks.zip")
    assert list(files) == ["a" + ENDINGS[kind], "A-2" + ENDINGS[kind]]
    for data in files.values():
        assert np.array_equal(READERS[kind](data), WANTED[kind])


def test_several_images_are_one_coco_file(ask: Ask) -> None:
    answer = ask("a.png", "more/A.png", format="coco")

    told = json.loads(content(answer))
    assert (answer.media_type, answer.file_name) == ("application/json", "coco.json")
    assert [image["file_name"] for image in told["images"]] == ["a.png", "A.png"]
    assert [one["image_id"] for one in told["annotations"]] == [1, 1, 2, 2]
    assert [one["score"] for one in told["annotations"]] == [0.9, 0.3, 0.9, 0.3]


@pytest.mark.parametrize("kind", list(READERS))
def test_flows_come_in_the_archive(ask: Ask, kind: str) -> None:
    answer = ask("a.png", format=kind, return_flows=True)

    files = files_in(answer)
    masks = "coco.json" if kind == "coco" else "a" + ENDINGS[kind]
    assert answer.file_name == "a.zip"
    assert set(files) == {
        masks,
        "a_flows_hsv.png",
        "a_flows_xy.npy",
        "a_flows_cellprob.npy",
        "a_flows_final_positions.npy",
    }
    assert np.array_equal(READERS[kind](files[masks]), WANTED[kind])
    assert np.load(io.BytesIO(files["a_flows_xy.npy"])).shape == (2, 10, 12)
    ends = np.load(io.BytesIO(files["a_flows_final_positions.npy"]))
    assert np.array_equal(ends, np.indices((10, 12)) + 1)


def test_coco_with_flows_of_several_images_is_one_archive(ask: Ask) -> None:
    files = files_in(ask("a.png", "more/A.png", format="coco", return_flows=True))

    assert len(files) == 9
    assert "A-2_flows_xy.npy" in files
    assert len(json.loads(files["coco.json"])["images"]) == 2


def test_the_same_request_has_the_same_answer(ask: Ask) -> None:
    for kind in ("roi", "coco", "tiff"):
        first, second = (ask("a.png", "more/A.png", format=kind) for _ in range(2))

        assert content(first) == content(second)


def test_parameters_arrive_at_the_network(ask: Ask) -> None:
    squares = TwoSquares()

    content(ask("a.png", segmenter=squares, diameter=9, niter=7, enable_clahe=True))
    content(ask("a.png", "a.png", segmenter=squares))

    (options, _, urgent), *others = squares.seen
    assert (options.diameter, options.iterations, options.clahe) == (9.0, 7, True)
    assert urgent is Priority.INTERACTIVE
    assert [priority for _, _, priority in others] == [Priority.BATCH] * 2


@pytest.mark.parametrize(
    ("names", "error", "sentence"),
    [
        (("a.png", "broken.png"), ImageDecodeError, r"^image_paths\[1\]: .*PNG file is damaged"),
        (("a.png", "gone.png"), BadRequest, r"^image_paths\[1\]: There is no file"),
        (("/etc/passwd",), BadRequest, r"^image_paths\[0\]: .*lies outside"),
    ],
)
def test_an_error_names_its_image(
    ask: Ask, names: tuple[str, ...], error: type[BackendError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        ask(*names)


def test_what_is_known_to_be_wrong_is_said_before_anything_is_computed(ask: Ask) -> None:
    squares = TwoSquares()

    with pytest.raises(BadRequest):
        ask("a.png", "gone.png", segmenter=squares)
    with pytest.raises(ModelNotFound):
        ask("a.png", segmenter=squares, model="unknown")

    assert squares.seen == []


@pytest.mark.parametrize(
    ("failure", "error", "sentence"),
    [
        (OutOfMemory(), OutOfMemory, r"image_paths\[0\]: The device ran out of memory"),
        (MemoryError(), OutOfMemory, "memory does not suffice"),
        (EngineError("The network failed."), EngineError, "^The network failed"),
        (OSError(28, "No space left on device"), EngineError, "No space left.*DATA_DIR"),
    ],
)
def test_what_the_engine_cannot_do_is_one_sentence(
    ask: Ask, failure: BaseException, error: type[BackendError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        ask("a.png", segmenter=TwoSquares(failure=failure))


def test_more_instances_than_the_format_numbers_are_refused(ask: Ask) -> None:
    @dataclass
    class Many(TwoSquares):
        def segment(self, image: Image, *args: Any, **more: Any) -> Segmentation:
            labels = np.full((image.height, image.width), 70_000, np.int32)
            return Segmentation(labels=labels, scores=np.ones(70_000, np.float32), diameter=1.0)

    with pytest.raises(ImageError, match="do not fit a 16-bit PNG"):
        ask("a.png", segmenter=Many(), format="png")

    assert READERS["tiff"](content(ask("a.png", segmenter=Many(), format="tiff"))).max() == 70_000


def test_time_runs_out_between_images(
    inference: Inference, folder: Path, clock: ManualClock
) -> None:
    class Slow(TwoSquares):
        def segment(self, *args: Any, **more: Any) -> Segmentation:
            clock.forward(60)
            return super().segment(*args, **more)

    slow = replace(inference, segmenter=Slow())
    with slow.open_work() as work:
        two = slow.infer(request_of(folder, "a.png", "a.png"), work, arrived_at=clock())
        with pytest.raises(EngineError, match=r"longer than INFER_BUDGET_S \(100 s\)"):
            slow.infer(request_of(folder, *["a.png"] * 3), work, arrived_at=clock())

    content(two)


def test_nothing_is_computed_for_somebody_who_has_gone(inference: Inference, folder: Path) -> None:
    squares = TwoSquares()
    chosen = replace(inference, segmenter=squares)
    with chosen.open_work() as work, pytest.raises(EngineError, match="Nobody waits"):
        chosen.infer(
            request_of(folder, "a.png", "a.png"),
            work,
            arrived_at=inference.clock(),
            is_deserted=lambda: len(squares.seen) == 1,
        )

    assert len(squares.seen) == 1


def test_an_answer_that_grows_too_large_is_refused(inference: Inference, folder: Path) -> None:
    small = replace(inference, most_answer_bytes=1000)

    with small.open_work() as work, pytest.raises(RequestTooLarge, match="answer is larger"):
        small.infer(request_of(folder, *["a.png"] * 9), work, arrived_at=inference.clock())


def test_nothing_stays_on_the_disk(ask: Ask, inference: Inference) -> None:
    answer = ask("a.png", "more/A.png", format="tiff", return_flows=True)
    with pytest.raises(BackendError):
        ask("a.png", "broken.png", format=MaskFormat.TIFF.value)

    assert list(inference.folder.iterdir()) == []
    assert len(content(answer)) > 100


def test_a_folder_that_is_gone_is_one_sentence(inference: Inference, tmp_path: Path) -> None:
    lost = replace(inference, folder=tmp_path / "gone")

    with pytest.raises(EngineError, match="DATA_DIR"), lost.open_work():
        pass
