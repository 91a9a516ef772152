"""The look of every picture, and the file it is written to."""

from __future__ import annotations

import io
import os
from contextlib import AbstractContextManager
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sim.errors import RoofcastError, sentence
from sim.files import check_writable, write_whole

SUFFIXES = (".png", ".svg")
INK = "#333333"
# Okabe and Ito's palette, told apart by colour-blind readers; its yellow is left out, too pale on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
STYLE: dict[str, Any] = {
    "font.size": 10,
    "text.parse_math": False,  # names of users are drawn as they are, dollar signs too
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.8,
    "figure.dpi": 150,
    "figure.constrained_layout.w_pad": 0.12,
    "figure.constrained_layout.h_pad": 0.12,
    "savefig.dpi": "figure",
    "svg.hashsalt": "roofcast",
    "svg.fonttype": "path",
}


def styled() -> AbstractContextManager[None]:
    """The look, for as long as a picture is made."""
    return matplotlib.rc_context(STYLE)  # type: ignore[arg-type]


def looks(names: list[str]) -> dict[str, tuple[str, str]]:
    """Color and marker of each name; they repeat after seven."""
    colors, markers = cycle(PALETTE), cycle(MARKERS)
    return {name: (next(colors), next(markers)) for name in names}


def check_file(path: str | os.PathLike[str]) -> Path:
    """The path, if a picture can be written there; RoofcastError for an unknown suffix or a missing folder."""
    file = Path(path)
    if file.suffix.lower() not in SUFFIXES:
        raise RoofcastError(sentence("expected a .png or .svg file", str(path) or "''", "end the name in .png or .svg"))
    return check_writable(path)


def save(figure: Figure, file: Path) -> None:
    """Write the picture whole, or not at all; the same figure gives the same bytes."""
    FigureCanvasAgg(figure)
    unstamped = {"Date": None} if file.suffix.lower() == ".svg" else {"Software": None}
    drawn = io.BytesIO()
    figure.savefig(drawn, format=file.suffix.lower().removeprefix("."), metadata=unstamped)
    write_whole(file, drawn.getvalue())
