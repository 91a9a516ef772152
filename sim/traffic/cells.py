"""Cells of a trace as numbers, whole columns at once; what is wrong is noted with its line."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sim.bounds import MOST_TOKENS
from sim.errors import RoofcastError, sentence, shown
from sim.measure.rows import place

A_TIME = "expected seconds, or a time such as 2024-05-10 00:00:00.5"
DATE = re.compile(r"((?:19|20)\d\d-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?) ?(Z|[+-][01]\d:[0-5]\d)?", re.ASCII)
Numbers = Sequence[int]


class Faults:
    """What is wrong with a file: of each kind the first, in order of lines."""

    def __init__(self, where: str):
        self._where = where
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, line: int, what: str, hint: str = "") -> None:
        """Note a fault of a line; of each kind only the first is kept."""
        self._found.setdefault(kind, (line, sentence(what, place(self._where, line), hint)))

    def raise_if_any(self) -> None:
        """Raise what was noted, in order of lines."""
        if self._found:
            raise RoofcastError(*(said for _, said in sorted(self._found.values())))


def lengths(cells: Sequence[Any], name: str, lines: Numbers, faults: Faults, least: int = 1) -> np.ndarray:
    """(M,) int32 tokens; each must be a whole number from `least` to MOST_TOKENS."""
    values = _floats(cells)
    good = (values >= least) & (values <= MOST_TOKENS) & (values == np.floor(values))
    if not good.all():
        row = int(np.argmin(good))
        what = f"{name} is {_quoted(cells[row])}, expected a whole number from {least} to {MOST_TOKENS:,}"
        faults.add(name, lines[row], what, "leave the row out" if values[row] == 0 else "")
    return np.where(good, values, 1).astype(np.int32)


def seconds(cells: Sequence[Any], name: str, lines: Numbers, faults: Faults) -> np.ndarray:
    """(M,) float64: numbers as they are, in the file's unit; they must be finite."""
    values = _floats(cells)
    good = np.isfinite(values)
    if not good.all():
        row = int(np.argmin(good))
        faults.add(name, lines[row], f"{name} is {_quoted(cells[row])}, {A_TIME}")
    return np.where(good, values, 0.0)


def nanoseconds(cells: Sequence[str], name: str, lines: Numbers, faults: Faults) -> np.ndarray:
    """(M,) int64 nanoseconds since 1970 of dates with times; a zone such as +00:00 or Z is taken off."""
    try:
        return _nanoseconds(cells)
    except ValueError:
        row = _first_that_fails(_nanoseconds, cells)
        faults.add(name, lines[row], f"{name} is {_quoted(cells[row])}, {A_TIME}")
        return np.zeros(len(cells), np.int64)


def is_date(cell: str) -> bool:
    """Whether a cell holds a date rather than a number."""
    return ":" in cell


def zone(cell: str) -> str:
    """The zone that a time ends with: "Z", "+00:00", or nothing."""
    found = DATE.fullmatch(cell.strip())
    return found[2] or "" if found else ""


def _nanoseconds(cells: Sequence[str]) -> np.ndarray:
    found = [DATE.fullmatch(cell.strip()) for cell in cells]
    if not all(found):  # numpy would take "now" and numbers of days as well
        raise ValueError
    stamps = np.array([match[1] for match in found if match], "datetime64[ns]").astype(np.int64)
    zones = [match[2] for match in found if match]
    if shifts := {its: _shift_ns(its) for its in set(zones) if its and its.strip("Z+-0:")}:
        stamps = stamps - np.array([shifts.get(its, 0) for its in zones], np.int64)
    return stamps


def _shift_ns(zone: str) -> int:
    ahead = np.timedelta64(int(zone[1:3]), "h") + np.timedelta64(int(zone[4:6]), "m")
    return int(ahead.astype("timedelta64[ns]").astype(np.int64)) * (-1 if zone[0] == "-" else 1)


def _floats(cells: Sequence[Any]) -> np.ndarray:
    """(M,) float64; NaN for what is no number."""
    if set(map(type, cells)) <= {str, int, float}:
        try:
            return np.array(list(map(float, cells)), np.float64)
        except (ValueError, OverflowError):
            pass
    return np.array([_float(cell) for cell in cells], np.float64)


def _float(cell: Any) -> float:
    try:
        return float(cell) if type(cell) in (str, int, float) else np.nan
    except (ValueError, OverflowError):
        return np.nan


def _first_that_fails(read: Callable[[Sequence[str]], np.ndarray], cells: Sequence[str]) -> int:
    for row, cell in enumerate(cells):
        try:
            read([cell])
        except ValueError:
            return row
    return 0


def _quoted(cell: Any) -> str:
    text = cell.strip() if isinstance(cell, str) else cell
    if text == "":
        return "empty"
    return text if isinstance(text, str) and text.lstrip("+-").replace(".", "", 1).isdecimal() else shown(text)
