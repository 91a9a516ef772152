"""Places labels beside their points so that none covers another label, a point or a line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

_RADII_PX = range(24, 520, 12)
_DIRECTIONS = tuple(math.tau * turn / 16 for turn in (0, 15, 1, 14, 2, 12, 13, 3, 4, 8, 7, 9, 10, 6, 11, 5))
_MARKER_PX = 28.0
_SAME_PX = 40.0
_LINE_BOXES = 200

Label = tuple[float, float, str, str]


def place_labels(figure: Figure, axes: Axes, labels: Sequence[Label], fontsize: float = 8.5) -> None:
    """Write each (x, y, text, color) at the nearest free place around (x, y), with a line to its point.

    Labels of one color whose points all but coincide become one label of several lines.
    """
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()
    legend = axes.get_legend()
    taken = [_box(*_pixels(axes, label), _MARKER_PX, _MARKER_PX) for label in labels]
    taken += [artist.get_window_extent(renderer) for artist in (*axes.texts, legend) if artist is not None]
    taken += [box for line in axes.lines for box in _along(line)]
    room = axes.get_window_extent(renderer)
    for x, y, text, color in _merged(axes, labels):
        note = axes.annotate(
            text,
            (x, y),
            (0, 0),
            textcoords="offset pixels",
            ha="center",
            va="center",
            fontsize=fontsize,
            color=color,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6, "alpha": 0.6, "shrinkB": 3},
        )
        note.set_in_layout(False)
        size, point = Text.get_window_extent(note, renderer), _pixels(axes, (x, y, text, color))
        place = free_place(point, (size.width + 8, size.height + 6), room, taken)
        note.set_position(((place.x0 + place.x1) / 2 - point[0], (place.y0 + place.y1) / 2 - point[1]))
        taken.append(place)


def free_place(point: tuple[float, float], size: tuple[float, float], room: Bbox, taken: Sequence[Bbox]) -> Bbox:
    """The nearest box of (width, height) about a point that lies inside `room` and covers nothing of `taken`.

    Tries 16 directions at growing distance; where all are taken, the nearest box. All in pixels.
    """
    places = list(_around(point, size))
    inside = (p for p in places if room.x0 <= p.x0 and p.x1 <= room.x1 and room.y0 <= p.y0 and p.y1 <= room.y1)
    return next((place for place in inside if not any(place.overlaps(other) for other in taken)), places[0])


def _merged(axes: Axes, labels: Sequence[Label]) -> list[Label]:
    groups: list[list[Label]] = []
    for label in labels:
        near = (group for group in groups if group[0][3] == label[3] and _near(axes, group[0], label))
        group = next(near, None)
        if group is None:
            groups.append([label])
        else:
            group.append(label)
    texts = ["\n".join(dict.fromkeys(text for _, _, text, _ in group)) for group in groups]
    return [(group[0][0], group[0][1], text, group[0][3]) for group, text in zip(groups, texts, strict=True)]


def _near(axes: Axes, one: Label, other: Label) -> bool:
    return math.dist(_pixels(axes, one), _pixels(axes, other)) < _SAME_PX


def _pixels(axes: Axes, label: Label) -> tuple[float, float]:
    x, y = axes.transData.transform(label[:2])
    return float(x), float(y)


def _along(line: Line2D) -> Iterator[Bbox]:
    """Small boxes that cover a line, or the points of one that is not drawn."""
    points = line.get_transform().transform(line.get_xydata())
    if line.get_linestyle() == "None":
        yield from (_box(x, y, 8, 8) for x, y in points[:: -(-len(points) // _LINE_BOXES) or 1])
        return
    at = np.linspace(0, len(points) - 1, _LINE_BOXES + 1)
    xs, ys = (np.interp(at, np.arange(len(points)), points[:, i]) for i in (0, 1))
    yield from (_box(x, y, 6, 6) for x, y in zip(xs, ys, strict=True))


def _around(point: tuple[float, float], size: tuple[float, float]) -> Iterator[Bbox]:
    for radius in _RADII_PX:
        for angle in _DIRECTIONS:
            dx, dy = math.cos(angle), math.sin(angle)
            yield _box(point[0] + dx * (radius + size[0] / 2), point[1] + dy * (radius + size[1] / 2), *size)


def _box(x: float, y: float, width: float, height: float) -> Bbox:
    return Bbox.from_bounds(x - width / 2, y - height / 2, width, height)
