"""A picture of all embeddings of a project: who lies near whom, by cluster and by label."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ml_backend.service.lettering import font, shortened
from ml_backend.service.projection import T_SNE, FloatArray, Projection

WIDTH = 1200  # pixels
MARGIN, GAP = 24, 32  # around the picture, between its panels
TOP = 96  # title and headings
PANEL = (WIDTH - 2 * MARGIN - GAP) // 2  # edge of a panel, a square
ROW, SWATCH = 22, 22  # height of a line of the legend, room for its mark
LARGEST_LEGEND = 40  # entries; the rest is summed up
FOOTER = 44
_INSET = 18  # pixels between a panel's frame and its outermost point
_FINER = 3  # points are drawn this much larger and then reduced, which smooths them
_FEW = 6  # points that the number of their cluster would cover
_NUMBERS_UP_TO = 99  # clusters whose numbers are written into the picture

INK, FAINT, FRAME, UNLABELLED = (40, 40, 40), (110, 110, 110), (206, 206, 206), (202, 202, 202)
COLOURS = (
    (0, 114, 178),  # blue
    (230, 159, 0),  # orange
    (0, 158, 115),  # green
    (204, 121, 167),  # pink
    (86, 180, 233),  # sky
    (213, 94, 0),  # vermilion
    (136, 34, 85),  # wine
    (153, 153, 51),  # olive
)
"""Colours that people with any colour vision can tell apart (Okabe and Ito; Tol), on white."""

_Colour = tuple[int, int, int]
_CORNERS: Sequence[Sequence[tuple[float, float]]] = (
    (),  # a disc
    ((-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)),
    ((0.0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
    ((0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)),
    ((0.0, 1.2), (1.1, -0.8), (-1.1, -0.8)),
)
"""Marks by their corners, in radii: with more groups than colours, shapes tell them apart."""


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Points that share a cluster or a label."""

    name: str
    count: int
    colour: _Colour
    shape: int  # index into _CORNERS


@dataclass(frozen=True, kw_only=True)
class _Panel:
    heading: str
    groups: Mapping[str, _Group]  # by what `names` says
    names: Sequence[str | None]  # one per point; None = in no group
    legend: Sequence[_Group]
    left: int  # pixels
    numbered: bool  # write each group's name into its middle


def embedding_picture(
    layout: Projection,
    clusters: Sequence[int | None],
    choices: Sequence[str | None],
    *,
    title: str,
) -> bytes:
    """Return a PNG, 1200 pixels wide: the points by cluster (left) and by label (right).

    Points without a cluster or label are gray and lie below the others. Without any points the
    picture says so.

    Args:
        layout: of N embeddings, from `projection.projection`.
        clusters: N cluster numbers; None or a negative number = not clustered.
        choices: N labels; None or empty = not labelled.
        title: the line above.
    """
    names = [_cluster_name(clusters[row]) for row in layout.rows]
    labels = [choices[row] or None for row in layout.rows]
    panels = [
        _panel("cluster", names, _cluster_order(names), left=MARGIN, numbered=True),
        _panel("label", labels, _label_order(labels), left=MARGIN + PANEL + GAP, numbered=False),
    ]
    columns = [_columns(panel) for panel in panels]
    lines = max(
        math.ceil(_entries(panel) / count) for panel, count in zip(panels, columns, strict=True)
    )
    height = TOP + PANEL + 14 + lines * ROW + FOOTER
    fine = Image.new("RGB", (WIDTH * _FINER, height * _FINER), "white")
    for panel, count in zip(panels, columns, strict=True):
        _draw_panel(ImageDraw.Draw(fine), panel, layout.points)
        _draw_legend(ImageDraw.Draw(fine), panel, count)
    picture = fine.resize((WIDTH, height), Image.Resampling.BOX)
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, 18), shortened(title, WIDTH - 2 * MARGIN, 22), INK, font=font(22))
    for panel, count in zip(panels, columns, strict=True):
        _write_panel(draw, panel, layout.points)
        _write_legend(draw, panel, count)
    _write_footer(draw, layout, height)
    content = io.BytesIO()
    picture.save(content, format="PNG", optimize=True)
    return content.getvalue()


def _cluster_name(number: int | None) -> str | None:
    return None if number is None or number < 0 else str(number)


def _cluster_order(names: Sequence[str | None]) -> list[str]:
    return sorted({name for name in names if name is not None}, key=int)


def _label_order(names: Sequence[str | None]) -> list[str]:
    counts = Counter(name for name in names if name is not None)
    return sorted(counts, key=lambda name: (-counts[name], name))


def _panel(
    what: str, names: Sequence[str | None], order: Sequence[str], *, left: int, numbered: bool
) -> _Panel:
    counts = Counter(names)
    groups = {
        name: _Group(
            name=name,
            count=counts[name],
            colour=COLOURS[at % len(COLOURS)],
            shape=at // len(COLOURS) % len(_CORNERS),
        )
        for at, name in enumerate(order)
    }
    without = counts[None]
    plural = "" if len(order) == 1 else "s"
    heading = f"{len(order)} {what}{plural}" if order else f"no {what}s yet"
    if order and without:
        heading += f", {len(names) - without} of {len(names)} points"
    legend = list(groups.values())
    if len(legend) > LARGEST_LEGEND:
        rest = legend[LARGEST_LEGEND - 1 :]
        more = _Group(
            name=f"{len(rest)} more {what}s",
            count=sum(group.count for group in rest),
            colour=INK,
            shape=-1,
        )
        legend = [*legend[: LARGEST_LEGEND - 1], more]
    if without:
        none = f"without a {what}"
        legend.append(_Group(name=none, count=without, colour=UNLABELLED, shape=0))
    return _Panel(
        heading=heading, groups=groups, names=names, legend=legend, left=left, numbered=numbered
    )


def _radius(count: int) -> float:
    """Return how large a mark is, in pixels, so that many do not hide each other."""
    return min(8.0, max(2.6, 108 / math.sqrt(max(1, count))))


def _place(point: FloatArray, panel: _Panel) -> tuple[float, float]:
    """Return a point (x, y in 0..1, y up) in pixels of the picture."""
    room = PANEL - 2 * _INSET
    return (
        panel.left + _INSET + float(point[0]) * room,
        TOP + PANEL - _INSET - float(point[1]) * room,
    )


def _draw_panel(draw: ImageDraw.ImageDraw, panel: _Panel, points: FloatArray) -> None:
    box = (panel.left, TOP, panel.left + PANEL, TOP + PANEL)
    draw.rectangle([edge * _FINER for edge in box], outline=FRAME, width=_FINER)
    radius = _radius(len(points))
    gray = [at for at, name in enumerate(panel.names) if name is None]
    shown = [at for at, name in enumerate(panel.names) if name is not None]
    # in random order, so that no group covers another
    shown = [shown[at] for at in np.random.default_rng(0).permutation(len(shown))]
    for at in gray:
        _mark(draw, _place(points[at], panel), radius * 0.8, UNLABELLED, 0)
    for at in shown:
        group = panel.groups[panel.names[at] or ""]
        _mark(draw, _place(points[at], panel), radius, group.colour, group.shape)


def _mark(
    draw: ImageDraw.ImageDraw,
    centre: tuple[float, float],
    radius: float,
    colour: _Colour,
    shape: int,
) -> None:
    """Draw a mark with a thin white edge; `centre` and `radius` in pixels of the picture."""
    x, y, size = centre[0] * _FINER, centre[1] * _FINER, radius * _FINER
    edge = 1 if radius < 4 else 2
    if shape < 0:
        return
    if not _CORNERS[shape]:
        box = (x - size, y - size, x + size, y + size)
        draw.ellipse(box, fill=colour, outline="white", width=edge)
        return
    corners = [(x + right * size, y + down * size) for right, down in _CORNERS[shape]]
    draw.polygon(corners, fill=colour, outline="white", width=edge)


def _entries(panel: _Panel) -> int:
    return max(1, len(panel.legend))


def _columns(panel: _Panel) -> int:
    """Return how many columns the legend has room for, by its longest name."""
    longest = max((font(14).getlength(_entry(group)) for group in panel.legend), default=0.0)
    return max(2, min(5, int(PANEL // (longest + SWATCH + 14))))


def _entry(group: _Group) -> str:
    return shortened(group.name, PANEL / 2 - 76, 14, middle=True) + f"  {group.count}"


def _slots(panel: _Panel, columns: int) -> list[tuple[_Group, float, float]]:
    """Return each legend entry with its left edge and middle in pixels, column by column."""
    lines = math.ceil(_entries(panel) / columns)
    return [
        (
            group,
            panel.left + at // lines * (PANEL / columns),
            TOP + PANEL + 14 + ROW * (at % lines + 0.5),
        )
        for at, group in enumerate(panel.legend)
    ]


def _draw_legend(draw: ImageDraw.ImageDraw, panel: _Panel, columns: int) -> None:
    for group, left, middle in _slots(panel, columns):
        _mark(draw, (left + SWATCH / 2 - 3, middle), 6.0, group.colour, group.shape)


def _write_legend(draw: ImageDraw.ImageDraw, panel: _Panel, columns: int) -> None:
    for group, left, middle in _slots(panel, columns):
        entry = _entry(group)
        name, _, count = entry.rpartition("  ")
        draw.text((left + SWATCH, middle), name, INK, font=font(14), anchor="lm")
        after = left + SWATCH + font(14).getlength(name + "  ")
        draw.text((after, middle), count, FAINT, font=font(14), anchor="lm")


def _write_panel(draw: ImageDraw.ImageDraw, panel: _Panel, points: FloatArray) -> None:
    heading = shortened(panel.heading, PANEL, 17)
    draw.text((panel.left, TOP - 12), heading, INK, font=font(17), anchor="ls")
    if not len(points):
        middle = (panel.left + PANEL / 2, TOP + PANEL / 2)
        words = "No image has been embedded yet."
        draw.text(middle, words, FAINT, font=font(17), anchor="mm")
    if panel.numbered and len(panel.groups) <= _NUMBERS_UP_TO:
        for name in panel.groups:
            own = points[[at for at, other in enumerate(panel.names) if other == name]]
            x, y = _place(_middle(own), panel)
            if len(own) < _FEW:  # above them, where it hides none
                y -= _radius(len(points)) + 10
            place = (x, max(y, TOP + 10))
            draw.text(
                place, name, INK, font=font(16), anchor="mm", stroke_width=2, stroke_fill="white"
            )


def _middle(points: FloatArray) -> FloatArray:
    """Return the one of `points` that is nearest to their medians: a number stands on its own."""
    away = points - np.median(points, axis=0)
    return np.asarray(points[int((away**2).sum(axis=1).argmin())], np.float32)


def _write_footer(draw: ImageDraw.ImageDraw, layout: Projection, height: int) -> None:
    if not layout.total:
        return
    shown = "1 image" if layout.total == 1 else f"{len(layout.rows)} images"
    if layout.total > len(layout.rows):
        shown = f"a random sample of {len(layout.rows)} of {layout.total} images"
    words = f"{layout.method} of {shown}"
    if layout.method == T_SNE:
        words += ": neighbours are alike, the distance between groups means little"
    draw.text((MARGIN, height - 18), words, FAINT, font=font(14), anchor="ls")
