"""GeoJSON as QuPath reads it: a feature for each instance, in pixels of the image.

Outlines follow pixel edges, y points down, the origin is the top left corner of the image. Holes
are inner rings, an instance in several parts is a MultiPolygon; each is valid by the rules that
QuPath checks. `objectType` makes it a detection (or annotation), `measurements` hold its number and
score, `id` is a UUID that is the same for the same name and number.
"""

from __future__ import annotations

import uuid
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import orjson

from ml_backend.domain import LabelImage
from ml_backend.geometry.shapes import Ring, Shape, trace_shapes

ObjectType = Literal["detection", "annotation"]

_IDS = uuid.UUID("5c1f6c0e-6f0b-5d0c-9a57-3b7d2f1f8a44")  # a namespace of our own


def write_geojson(
    file: BinaryIO,
    labels: LabelImage,
    scores: npt.NDArray[np.float32] | None = None,
    *,
    name: str = "",
    object_type: ObjectType = "detection",
    classification: str | None = "Cell",
) -> None:
    """Write the instances of a (Y, X) label image as a FeatureCollection.

    Args:
        file: Where to.
        labels: 0 = background.
        scores: (N,) in 0..1; scores[i] belongs to instance i + 1.
        name: Of the image; keeps the ids of its instances apart from those of others.
        object_type: What QuPath makes of each.
        classification: Name of the class that each has; None = no class.
    """
    file.write(b'{"type":"FeatureCollection","features":[')
    separator = b""
    for shape in trace_shapes(labels):
        score = None if scores is None else float(scores[shape.label - 1])
        feature = _feature(
            shape, score, name=name, object_type=object_type, classification=classification
        )
        file.write(separator)
        file.write(orjson.dumps(feature))
        separator = b",\n"
    file.write(b"]}\n")


def _feature(
    shape: Shape,
    score: float | None,
    *,
    name: str,
    object_type: ObjectType = "detection",
    classification: str | None = "Cell",
) -> dict[str, Any]:
    """Return an instance as a Feature; see `write_geojson`."""
    measurements: dict[str, float] = {"Label": shape.label}
    if score is not None:
        measurements["Score"] = round(score, 4)
    properties: dict[str, Any] = {"objectType": object_type, "measurements": measurements}
    if classification is not None:
        properties["classification"] = {"name": classification}
    polygons = [[_closed(ring) for ring in part] for part in shape.parts]
    geometry = (
        {"type": "Polygon", "coordinates": polygons[0]}
        if len(polygons) == 1
        else {"type": "MultiPolygon", "coordinates": polygons}
    )
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_IDS, f"{name}\n{shape.label}")),
        "geometry": geometry,
        "properties": properties,
    }


def _closed(ring: Ring) -> list[list[int]]:
    points: list[list[int]] = ring.tolist()
    return [*points, points[0]]
