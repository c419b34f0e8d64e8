"""Segments the images of a program's request and writes the answer to a file."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import structlog

from ml_backend.domain import Component, Flows, FlowSegmenter, Image, Priority, Segmentation
from ml_backend.errors import (
    BackendError,
    BadRequest,
    EngineError,
    ImageError,
    OutOfMemory,
    RequestTooLarge,
    error_of,
)
from ml_backend.service.file_names import distinct_stems, safe_name
from ml_backend.service.inference_answer import AnswerShape, Found, write_answer
from ml_backend.service.inference_images import ImageSources, name_of
from ml_backend.service.inference_request import InferenceRequest

MOST_ANSWER_BYTES: Final = 16_000_000_000
_PIECE: Final = 1 << 18

log = structlog.get_logger(__name__)


class Deserted(EngineError):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class InferenceAnswer:
    """An answer in a file that vanishes when it is closed."""

    file: BinaryIO  # at its beginning
    size: int  # bytes
    media_type: str
    file_name: str | None  # None = it is no file

    def pieces(self) -> Iterator[bytes]:
        """Yield the answer piece by piece, then close its file."""
        with self.file:
            while piece := self.file.read(_PIECE):
                yield piece


@dataclass(frozen=True, kw_only=True)
class Inference:
    """Answers requests; safe to call from many threads."""

    sources: ImageSources
    segmenter: FlowSegmenter
    choose_model: Callable[[str], Component]  # raises ModelError, BadRequest
    folder: Path  # for what lies on the disk meanwhile
    budget_s: float  # that a request may take from its arrival
    most_answer_bytes: int = MOST_ANSWER_BYTES
    clock: Callable[[], float] = time.monotonic

    @contextmanager
    def open_work(self) -> Iterator[Path]:
        """Give a folder for one request, which vanishes with all that is in it.

        Raises:
            EngineError: there is no room.
        """
        with _disk_errors(), tempfile.TemporaryDirectory(dir=self.folder) as work:
            yield Path(work)

    def infer(
        self,
        request: InferenceRequest,
        work: Path,
        *,
        arrived_at: float,
        is_deserted: Callable[[], bool] = lambda: False,
    ) -> InferenceAnswer:
        """Return the answer to a request; blocks until it is complete.

        Args:
            request: What is wanted.
            work: A folder of `open_work`.
            arrived_at: By the clock.
            is_deserted: Says whether nobody waits for the answer any more.

        Raises:
            BadRequest: a path must not be read, or the answer would be too large.
            ImageError: an image cannot be used, or the format cannot hold what was found.
            ModelError, EngineError
        """
        parameters = request.parameters
        folder = self.sources.folder_of(parameters.artifact)
        for index, source in enumerate(request.sources):
            with _naming(request, index):
                self.sources.check(source, folder)
        model = self.choose_model(parameters.model)
        shape = AnswerShape(
            answer=parameters.answer,
            count=len(request.sources),
            with_flows=parameters.with_flows,
            nested_lists=parameters.nested_lists,
        )
        started = self.clock()
        with _disk_errors():
            file = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115  # the answer closes it
            try:

                def may_go_on() -> None:
                    self._check(file, arrived_at, is_deserted)

                stems = _stems(request)
                found = self._find(request, folder, model, stems, may_go_on)
                write_answer(file, found, shape, model=model, work=work)
                size = file.seek(0, 2)
                file.seek(0)
            except BaseException:
                file.close()
                raise
        log.info(
            "images segmented for a program",
            images=len(request.sources),
            model=model.name,
            format=parameters.answer or "json",
            bytes=size,
            seconds=round(self.clock() - started, 3),
        )
        return InferenceAnswer(
            file=file,
            size=size,
            media_type=shape.media_type,
            file_name=shape.file_name(stems[0]),
        )

    def _find(
        self,
        request: InferenceRequest,
        folder: Path | None,
        model: Component,
        stems: list[str],
        may_go_on: Callable[[], None],
    ) -> Iterator[Found]:
        options = request.parameters.options
        for index, source in enumerate(request.sources):
            may_go_on()
            with _naming(request, index):
                image = self.sources.open(source, folder, options)
                segmentation, flows = self._segment(image, request, model)
            del image
            yield Found(
                name=safe_name(name_of(source, index)) or stems[index],
                stem=stems[index],
                segmentation=segmentation,
                flows=flows,
            )
            del segmentation, flows  # before the next image takes as much

    def _segment(
        self, image: Image, request: InferenceRequest, model: Component
    ) -> tuple[Segmentation, Flows | None]:
        parameters = request.parameters
        # somebody waits for one image; a hundred are a batch, and let single ones pass
        priority = Priority.INTERACTIVE if len(request.sources) == 1 else Priority.BATCH
        flows: Flows | None = None
        if parameters.with_flows:
            found, flows = self.segmenter.segment_with_flows(
                image, parameters.options, component=model, priority=priority
            )
        else:
            found = self.segmenter.segment(
                image, parameters.options, component=model, priority=priority
            )
        noted = dataclasses.replace(found, notes=(*image.notes, *found.notes))
        return noted.scoring_at_least(parameters.score_threshold), flows

    def _check(self, file: BinaryIO, arrived_at: float, is_deserted: Callable[[], bool]) -> None:
        """Check that it makes sense to go on."""
        if is_deserted():
            raise Deserted
        if self.clock() - arrived_at > self.budget_s:
            raise EngineError(
                f"The images took longer than INFER_BUDGET_S ({self.budget_s:g} s) allows; send "
                "fewer at once, or raise it."
            )
        if file.tell() > self.most_answer_bytes:
            raise RequestTooLarge(
                f"The answer is larger than {self.most_answer_bytes / 1e9:g} GB; send fewer images "
                "at once, or ask for another format."
            )


def _stems(request: InferenceRequest) -> list[str]:
    return distinct_stems([name_of(one, index) for index, one in enumerate(request.sources)])


@contextmanager
def _naming(request: InferenceRequest, index: int) -> Iterator[None]:
    """Say which image an error is about."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemory(
            f"{request.told(index)}: the engine's memory does not suffice for this image; send a "
            "smaller one."
        ) from error
    except (BadRequest, ImageError, OutOfMemory) as error:
        raise _named(error, request.told(index)) from error


def _named(error: BackendError, what: str) -> BackendError:
    return error_of(error.code, f"{what}: {error.message}") or error


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise OutOfMemory("The engine's memory does not suffice for this answer.") from error
    except OSError as error:
        raise EngineError(
            f"The engine cannot keep images and answers on its disk ({error.strerror or error}); "
            "free some space in DATA_DIR."
        ) from error
