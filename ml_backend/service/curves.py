"""A session's curves: as JSON keyed by epoch, and as a picture."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ml_backend.learning import EpochPoint, Session
from ml_backend.service.axes import Axis, epoch_ticks, text_of

WIDTH, PANEL_HEIGHT = 900, 230  # pixels
LEFT, RIGHT, TOP, BOTTOM = 84, 24, 64, 54  # around all panels
GAP = 44  # between panels, room for a panel's title
_FINER = 3  # lines are drawn this much larger and then reduced, which smooths them

INK, FAINT, GRID = (40, 40, 40), (110, 110, 110), (226, 226, 226)
BLUE, ORANGE, GREEN, PURPLE = (0, 114, 178), (213, 94, 0), (0, 138, 100), (170, 80, 140)
"""Colours that people with any colour vision can tell apart (Okabe and Ito)."""

PIXELS = ("pixel_precision", "pixel_recall", "pixel_f1", "pixel_iou")
"""The names of `EpochPoint.pixels`."""

_SHOWN_PIXELS = ((0, "precision", BLUE), (1, "recall", GREEN), (3, "IoU", PURPLE))

_Colour = tuple[int, int, int]
_Box = tuple[int, int, int, int]


def curves_json(points: Sequence[EpochPoint]) -> dict[str, dict[str, float | int | None]]:
    """Return the curves keyed by epoch, {} before the first has ended.

    A value that was not measured in that epoch, or is no number, is None. Scores of pixels are
    there where there is a test set.
    """
    with_pixels = any(point.pixels for point in points)
    return {str(point.epoch): _values(point, with_pixels=with_pixels) for point in points}


def _values(point: EpochPoint, *, with_pixels: bool) -> dict[str, float | int | None]:
    precision: Sequence[float | None] = point.precision or (None, None, None)
    pixels: Sequence[float | None] = point.pixels or (None, None, None, None)
    numbers = {
        "loss": point.loss,
        "lr": point.learning_rate,
        "val_loss": point.validation_loss,
        **dict(zip(("ap50", "ap75", "ap90"), precision, strict=True)),
        **(dict(zip(PIXELS, pixels, strict=True)) if with_pixels else {}),
        "seconds": point.seconds,
    }
    finite = {name: value if _is_number(value) else None for name, value in numbers.items()}
    return {**finite, "step": point.step}


def curves_title(session: Session) -> str:
    """Return the line above the picture of a session's curves."""
    parts = (
        f"Session {session.id}",
        session.dataset or f"project {session.project.project_id}",
        ", ".join(session.controls),
        session.version or session.state,
    )
    return " · ".join(part for part in parts if part)


@dataclass(frozen=True, kw_only=True)
class _Line:
    name: str
    colour: _Colour
    values: Sequence[float | None]  # one per point; None = not measured


@dataclass(frozen=True, kw_only=True)
class _Panel:
    title: str
    lines: Sequence[_Line]
    axis: Axis


def curves_picture(points: Sequence[EpochPoint], *, title: str) -> bytes:
    """Return a PNG of loss, precision on the hold-out and learning rate over the epochs.

    Precision, and what a test set says, is left out where it was never measured. Without points
    the picture says so.
    """
    points = sorted(points, key=lambda point: point.epoch)
    panels = list(_panels(points))
    height = TOP + BOTTOM + max(1, len(panels)) * PANEL_HEIGHT + max(0, len(panels) - 1) * GAP
    boxes = [
        (LEFT, top, WIDTH - RIGHT, top + PANEL_HEIGHT)
        for top in (TOP + index * (PANEL_HEIGHT + GAP) for index in range(max(1, len(panels))))
    ]
    epochs = [point.epoch for point in points]
    across = epoch_ticks(epochs)
    fine = Image.new("RGB", (WIDTH * _FINER, height * _FINER), "white")
    for box, panel in zip(boxes, panels, strict=False):
        _draw_panel(ImageDraw.Draw(fine), box, panel, epochs, across)
    picture = fine.resize((WIDTH, height), Image.Resampling.BOX)
    draw = ImageDraw.Draw(picture)
    draw.text((LEFT, 8), _shortened(title), INK, font=_font(17))
    for box, panel in zip(boxes, panels, strict=False):
        _write_panel(draw, box, panel)
    _write_epochs(draw, boxes[-1], across if panels else None)
    content = io.BytesIO()
    picture.save(content, format="PNG", optimize=True)
    return content.getvalue()


def _panels(points: Sequence[EpochPoint]) -> Iterator[_Panel]:
    if not points:
        return
    losses = [
        _Line(name="training", colour=BLUE, values=[point.loss for point in points]),
        _Line(name="hold-out", colour=ORANGE, values=[point.validation_loss for point in points]),
    ]
    numbers = [value for line in losses for value in line.values]
    yield _Panel(title="loss", lines=losses, axis=Axis.of(_numbers(numbers)))
    if any(point.precision for point in points):
        lines = [
            _Line(
                name=name,
                colour=colour,
                values=[point.precision[at] if point.precision else None for point in points],
            )
            for at, (name, colour) in enumerate(
                (("AP@0.5", BLUE), ("AP@0.75", GREEN), ("AP@0.9", PURPLE))
            )
        ]
        yield _Panel(title="precision on the hold-out", lines=lines, axis=Axis.unit())
    if any(point.pixels for point in points):
        lines = [
            _Line(
                name=name,
                colour=colour,
                values=[point.pixels[at] if point.pixels else None for point in points],
            )
            for at, name, colour in _SHOWN_PIXELS
        ]
        yield _Panel(title="pixels of objects in the test set", lines=lines, axis=Axis.unit())
    rates = [point.learning_rate for point in points]
    yield _Panel(
        title="learning rate",
        lines=[_Line(name="learning rate", colour=BLUE, values=rates)],
        axis=Axis.from_zero(_numbers(rates)),
    )


def _draw_panel(
    draw: ImageDraw.ImageDraw, box: _Box, panel: _Panel, epochs: Sequence[int], across: Axis
) -> None:
    """Draw a panel's grid and lines, on the finer picture."""
    left, top, right, bottom = (edge * _FINER for edge in box)

    def x_of(epoch: float) -> float:
        return left + across.share(epoch) * (right - left)

    def y_of(value: float) -> float:
        return bottom - panel.axis.share(value) * (bottom - top)

    for tick in panel.axis.ticks:
        draw.line([(left, y_of(tick)), (right, y_of(tick))], GRID, width=_FINER)
    for tick in across.ticks:
        draw.line([(x_of(tick), top), (x_of(tick), bottom)], GRID, width=_FINER)
    draw.line([(left, top), (left, bottom), (right, bottom)], FAINT, width=_FINER)
    for line in panel.lines:
        for stretch in _stretches(epochs, line.values):
            corners = [(x_of(epoch), y_of(value)) for epoch, value in stretch]
            draw.line(corners, line.colour, width=2 * _FINER, joint="curve")
            if len(corners) == 1 or len(epochs) <= 60 or None in line.values:
                for x, y in corners:
                    radius = 3 * _FINER
                    draw.ellipse((x - radius, y - radius, x + radius, y + radius), line.colour)


def _write_panel(draw: ImageDraw.ImageDraw, box: _Box, panel: _Panel) -> None:
    """Write a panel's title, what its lines are and the numbers at its left edge."""
    left, top, right, bottom = box
    draw.text((left, top - 22), panel.title, INK, font=_font(15))
    if len(panel.lines) > 1:
        x = right
        for line in reversed(panel.lines):
            last = next((value for value in reversed(line.values) if value is not None), None)
            if last is None:
                continue
            words = f"{line.name} {text_of(last)}"
            x -= round(draw.textlength(words, font=_font(14)))
            draw.text((x, top - 21), words, line.colour, font=_font(14))
            x -= 32
            draw.line([(x + 6, top - 12), (x + 26, top - 12)], line.colour, width=3)
            x -= 14
    for tick in panel.axis.ticks:
        y = bottom - panel.axis.share(tick) * (bottom - top)
        draw.text((left - 8, y), text_of(tick), FAINT, font=_font(13), anchor="rm")


def _write_epochs(draw: ImageDraw.ImageDraw, box: _Box, across: Axis | None) -> None:
    left, top, right, bottom = box
    middle = (left + right) / 2
    if across is None:
        words = "No epoch has ended yet."
        draw.text((middle, (top + bottom) / 2), words, FAINT, font=_font(17), anchor="mm")
        return
    for tick in across.ticks:
        x = left + across.share(tick) * (right - left)
        draw.text((x, bottom + 6), f"{tick:g}", FAINT, font=_font(13), anchor="ma")
    draw.text((middle, bottom + 28), "epoch", FAINT, font=_font(14), anchor="ma")


def _stretches(
    epochs: Sequence[int], values: Sequence[float | None]
) -> Iterator[list[tuple[int, float]]]:
    """Yield runs of measured values; one that is no number breaks the line, one left out not."""
    run: list[tuple[int, float]] = []
    for epoch, value in zip(epochs, values, strict=True):
        if value is None:
            continue
        if _is_number(value):
            run.append((epoch, value))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


def _shortened(title: str) -> str:
    return title if len(title) <= 96 else title[:95] + "…"


def _font(size: int) -> Any:
    return ImageFont.load_default(size)
