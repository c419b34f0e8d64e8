"""The README of a package: what the model is, how it is used, how good it is, what it cannot do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ml_backend.service.export_request import Citation, ExportRequest
from ml_backend.service.package_facts import PackageFacts
from ml_backend.service.package_frame import PackageFrame
from ml_backend.service.package_names import COVER, MASKS, OWN_WEIGHTS, TORCHSCRIPT, WEIGHTS

_NOT_MEASURES: Final = frozenset({"rule", "promotion", "passed", "few_images", "low_quantile"})
_NETWORKS: Final = {  # of the gate's numbers
    "candidate": "this model",
    "active": "what was served before",
    "base": "the network it was made from",
}
_MEASURES: Final = {"ap50": "AP at IoU 0.5", "ap75": "AP at 0.75", "ap90": "AP at 0.9"}


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What the README tells."""

    request: ExportRequest
    title: str
    description: str
    licence: str
    name: str  # of the model where it comes from
    sha256: str  # of its weights there
    facts: PackageFacts
    frame: PackageFrame
    network_diameter: float  # pixels of an object, as the network knows them
    diameter: float | None  # pixels, image frame
    architecture: str
    parameters: int
    channels: int
    masks: Mapping[str, Any]  # options of the post-processing
    clahe: bool  # whether it was measured with equalised contrast
    score_threshold: float  # below it objects were left out when it was measured
    sample: str  # a sentence: what the test image is
    found: int  # objects in the sample
    has_torchscript: bool
    has_own_weights: bool
    citations: Sequence[Citation] = field(default_factory=tuple)


def write_card(card: CardFacts) -> str:
    """Return the README, Markdown."""
    parts = [
        f"# {card.title}",
        card.description,
        f"![An image, and what the model found in its right half]({COVER})",
        _use(card),
        _limits(card),
        _lineage(card),
        _training(card),
        _validation(card),
        _licence(card),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _use(card: CardFacts) -> str:
    size = (
        f"images of {card.frame.least} x {card.frame.least} pixels; larger ones are cut into tiles"
        if card.frame.step == 0
        else f"sides of {card.frame.least} pixels plus a multiple of {card.frame.step}"
    )
    channels = {
        1: "One channel, gray.",
        2: "Two channels.",
        3: "Three channels, red, green and blue.",
    }[card.channels]
    torchscript = f", and TorchScript, `{TORCHSCRIPT}`" if card.has_torchscript else ""
    options = ", ".join(f"`{name}` {value}" for name, value in card.masks.items())
    return f"""## Intended use

Outlines cells or nuclei in two-dimensional microscopy images, each object by itself. {channels}
{_sizes(card)}

## How to use it

The network answers with flows and a cell probability, as Cellpose's networks do, and a small
program makes a label image of them:

```
bioimageio predict . --inputs image.tif --outputs flows.tif
python {MASKS} flows.tif masks.tif
```

- Input: {size}.
- Values may have any range: the description has each channel of each image mapped so that its 1st
  percentile becomes 0 and its 99th becomes 1.
- Output: three channels, 5 x Y-flow, 5 x X-flow, logit of the cell probability, the image's size.
- `{MASKS}` needs `pip install cellpose`. Its defaults are what this model was measured with:
  {options}.
- Weights: a PyTorch state dictionary, `{WEIGHTS}`{torchscript}.
- The architecture file needs torch and nothing else.
- {_back(card)}"""


def _sizes(card: CardFacts) -> str:
    if card.diameter is not None:
        return (
            f"Made for objects that are about {card.diameter:.0f} pixels wide; the network resizes "
            f"images inside, so give them as they are."
        )
    if card.frame.step == 0:
        return "Objects may have any size within reason; about 30 pixels wide is best."
    return (
        f"Finds objects that are about {card.network_diameter:.0f} pixels wide: resize images in "
        "which they are not."
    )


def _back(card: CardFacts) -> str:
    kept = f" from `{OWN_WEIGHTS}`" if card.has_own_weights else ""
    return (
        f"The Label Studio cell backend, which made this package, reads it back{kept}: upload\n"
        "  the archive as a model, and its masks are the same."
    )


def _limits(card: CardFacts) -> str:
    limits = [
        "Two-dimensional: stacks are segmented plane by plane.",
        "It knows what it was trained on; look at a few of your own images before you trust it.",
        "Objects at the edge of a tile are seen only in part; use the halo that the description "
        "names.",
        "Some programs mirror an image at its edges, so objects that its edge cuts may be missed.",
    ]
    if card.channels == 3:
        limits.append("A channel in which nothing is to be seen should be left out, not be black.")
    if card.clahe:
        limits.append(
            "It was trained and measured on images with equalised contrast (CLAHE, clip limit 3, "
            "16 x 16 tiles); equalise yours first, for the description cannot say so."
        )
    if card.score_threshold > 0:
        limits.append(
            f"When it was measured, objects that scored less than {card.score_threshold:g} were "
            f"left out; `{MASKS}` knows no scores and keeps them."
        )
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)


def _lineage(card: CardFacts) -> str:
    own = f"- `{card.name}`, this model: {card.architecture}, {card.parameters:,} parameters"
    rows = [f"{own}, SHA-256 `{card.sha256[:16]}`"]
    for ancestor in card.facts.lineage:
        licence = f", {ancestor.licence}" if ancestor.licence else ""
        digest = f", SHA-256 `{ancestor.sha256[:16]}`" if ancestor.sha256 else ""
        rows.append(f"- made from `{ancestor.name}`{licence}{digest}")
    return "## Lineage\n\n" + "\n".join(rows)


def _training(card: CardFacts) -> str:
    data, published = card.facts.part("data"), card.facts.part("training_data")
    rows = []
    if published.get("name"):
        address = f", {published['address']}" if published.get("address") else ""
        rows.append(
            f"- {published['name']}{address} ({published.get('licence', 'licence unknown')})"
        )
    for key, what in (("training_images", "images to learn from"), ("held_out_images", "held out")):
        if isinstance(data.get(key), int):
            rows.append(f"- {what}: {data[key]}")
    if isinstance(data.get("sha256"), str):
        rows.append(f"- SHA-256 of the list of images: `{data['sha256'][:16]}`")
    given = {
        name: value
        for name, value in card.facts.part("parameters").items()
        if value is not None and not isinstance(value, Mapping | list)
    }
    if given:
        shown = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in given.items())
        rows.append(f"- parameters: {shown}")
    return "## Training data\n\n" + "\n".join(rows) if rows else ""


def _validation(card: CardFacts) -> str:
    tables = [
        *_gate_table(card.facts.part("metrics")),
        *_accuracy_table(card.facts.part("accuracy")),
    ]
    measured = (
        "\n".join(tables)
        if tables
        else "Nobody has recorded how well this model does; measure it on images of your own."
    )
    return f"""## Validation

{measured}

To measure it on images of your own: outline the objects in a few of them, make label images with
`{MASKS}`, and match them, for example by the average precision of `cellpose.metrics`.

The test image: {card.sample} The model found {card.found} objects in it."""


def _gate_table(metrics: Mapping[str, Any]) -> Iterator[str]:
    rows = {
        shown: metrics[name]
        for name, shown in _NETWORKS.items()
        if isinstance(metrics.get(name), Mapping)
    }
    if not rows:
        return
    images = metrics.get("images")
    yield f"On {images} images that were held out (average precision):" if images else "Measured:"
    yield ""
    yield "| network | " + " | ".join(_MEASURES.values()) + " |"
    yield "|---|" + "---|" * len(_MEASURES)
    for shown, numbers in rows.items():
        yield f"| {shown} | " + " | ".join(_number(numbers.get(name)) for name in _MEASURES) + " |"


def _accuracy_table(accuracy: Mapping[str, Any]) -> Iterator[str]:
    rows = [(name, numbers) for name, numbers in accuracy.items() if isinstance(numbers, Mapping)]
    measures = ("AP@0.5", "AP@0.75", "AP@0.9")
    if not rows:
        return
    yield "| images of | number | " + " | ".join(measures) + " |"
    yield "|---|---|" + "---|" * len(measures)
    for name, numbers in rows:
        found = numbers.get("true_diameter", numbers)
        values = found if isinstance(found, Mapping) else {}
        shown = " | ".join(_number(values.get(measure)) for measure in measures)
        yield f"| {name} | {numbers.get('images', '')} | {shown} |"


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else ""


def _licence(card: CardFacts) -> str:
    cited = [
        f"- {one.text} {f'https://doi.org/{one.doi}' if one.doi else one.url}"
        for one in (*card.request.citations, *card.citations)
    ]
    commercial = (
        " Not for commercial use: the training data of the weights does not allow it."
        if "-NC" in card.licence
        else ""
    )
    return (
        f"## Licence and citation\n\nThe weights are under {card.licence}.{commercial} If you use "
        "them, please cite:\n\n" + "\n".join(cited)
    )
