"""Asks a server for the instances in images."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np

from ml_backend.client.answers import read_answer
from ml_backend.client.arrays import decode_npy
from ml_backend.client.call import Call
from ml_backend.client.connection import Connection
from ml_backend.client.downloads import download
from ml_backend.client.images import Batch, Image, batches, listed, one_batch
from ml_backend.client.infer_options import InferOptions
from ml_backend.client.infer_result import Flows, InferResult, ModelUsed
from ml_backend.errors import BadRequest, ServerError

INFER_PATH = "/api/v1/infer"
MAX_ANSWER_BYTES = 4_000_000_000  # of one request: eight images of 4000 x 4000 with all flows
FORMATS: Mapping[str, str] = {
    "npy": ".npy",
    "png": ".png",
    "tiff": ".tif",
    "roi": ".zip",
    "geojson": ".geojson",
    "coco": ".json",
    "json": ".json",
}
"""What masks can be written as, and how such files end."""


class Inference:
    """Inference over one connection."""

    def __init__(self, connection: Connection, *, timeout_s: float) -> None:
        """Keep the connection.

        Args:
            connection: To the server.
            timeout_s: How long an answer may take to begin.
        """
        self._connection, self._timeout_s = connection, timeout_s

    def results(
        self,
        images: Image | Iterable[Image],
        *,
        return_flows: bool,
        artifact: str | None,
        options: InferOptions,
    ) -> Iterator[InferResult]:
        """Yield what is found in each image, in order, asking for a few images at a time.

        Raises:
            BadRequest: an image is none, or an option is not known.
            BackendError: what the server refuses with.
        """
        fields = {**_fields(options), "artifact": artifact, "return_flows": return_flows}
        for batch in batches(listed(images)):
            call = self._call(batch, fields)
            content = self._connection.ask(call, max_bytes=MAX_ANSWER_BYTES)
            answer = read_answer(content, _Answer)
            if len(answer.items) != len(batch.images):
                raise ServerError(
                    f"The server answered {len(answer.items)} of {len(batch.images)} images; see "
                    "its log."
                )
            del content
            for item in answer.items:
                yield _result(item, answer.model)

    def file(
        self,
        images: Image | Iterable[Image],
        output: Path | str,
        *,
        format: str,
        return_flows: bool,
        artifact: str | None,
        options: InferOptions,
    ) -> Path:
        """Write what is found to a file as it arrives; see `Client.infer_file`."""
        if format not in FORMATS:
            raise BadRequest(f"Masks are not written as {format!r}; one of {', '.join(FORMATS)}.")
        batch = one_batch(images)
        fields = {**_fields(options), "artifact": artifact, "return_flows": return_flows}
        is_many = len(batch.images) > 1 and format != "coco"
        is_archive = format != "json" and (is_many or return_flows)
        ending = ".zip" if is_archive else FORMATS[format]
        return download(
            self._connection,
            self._call(batch, {**fields, "format": format}),
            output,
            default_name=f"masks{ending}",
        )

    def _call(self, batch: Batch, fields: Mapping[str, Any]) -> Call:
        given = {name: value for name, value in fields.items() if value is not None}
        if batch.uploads:
            form = {name: _text(value) for name, value in given.items()}
            return self._post(form=form, uploads=batch.uploads)
        return self._post(body={**given, **batch.body()})

    def _post(self, **content: Any) -> Call:
        # it changes nothing on the server, so that asking twice is safe
        return Call(
            method="POST",
            path=INFER_PATH,
            is_repeatable=True,
            timeout_s=self._timeout_s,
            **content,
        )


class _FlowsItem(msgspec.Struct):
    hsv: bytes | None = None
    xy: bytes | None = None
    cellprob: bytes | None = None
    final_positions: bytes | None = None


class _Item(msgspec.Struct):
    masks: bytes  # an NPY file; base64 in JSON
    name: str = ""
    scores: list[float] = []
    diameter: float | None = None
    notes: tuple[str, ...] = ()
    flows: _FlowsItem | None = None


class _Answer(msgspec.Struct):
    items: list[_Item]
    model: ModelUsed | None = None


def _result(item: _Item, model: ModelUsed | None) -> InferResult:
    masks = decode_npy(item.masks)
    if masks.ndim != 2 or masks.dtype.kind not in "iu":
        raise ServerError("The server sent masks that are no label image; update the older part.")
    flows = item.flows
    return InferResult(
        name=item.name,
        masks=masks.astype(np.int32, copy=False),
        scores=np.asarray(item.scores, np.float32),
        diameter=item.diameter,
        notes=item.notes,
        flows=None
        if flows is None
        else Flows(
            hsv=None if flows.hsv is None else decode_npy(flows.hsv),
            xy=None if flows.xy is None else decode_npy(flows.xy),
            cellprob=None if flows.cellprob is None else decode_npy(flows.cellprob),
            final_positions=None
            if flows.final_positions is None
            else decode_npy(flows.final_positions),
        ),
        model=model,
    )


def _fields(options: InferOptions) -> dict[str, Any]:
    known = InferOptions.__annotations__
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise BadRequest(
            f"There is no option {unknown[0]!r} of inference; there are {', '.join(known)}."
        )
    fields = dict(cast("dict[str, Any]", options))
    if fields.get("channels") is not None:
        fields["channels"] = [int(channel) for channel in fields["channels"]]
    return fields


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
