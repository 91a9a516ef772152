"""Numbers out of cells: what is absent is told from what is wrong, and what is wrong is named with its column."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from sim.errors import shown
from sim.measure.rows import Bad, Unusable

MOST = 1e12  # no count of tokens and no time in any unit here is larger
ABSENT = ("", "-", "none", "null", "nan", "n/a")


def text(columns: Mapping[str, str], name: str, fallback: str = "") -> str:
    """The cell without blanks around it, or the fallback where the column is not there or empty."""
    found = (columns.get(name) or "").strip()
    return fallback if found.lower() in ABSENT else found


def figure(value: Any, name: str) -> float:
    """A measured figure: a number above 0. Anything else is a mistake of the file."""
    number = _number(value, name)
    if number <= 0:
        raise Bad("not positive", f"{name} is {shown(value)}", "a time or a rate is above 0; leave out what failed")
    return number


def amount(value: Any, name: str) -> float:
    """A length or a share: a number of at least 0."""
    number = _number(value, name)
    if number < 0:
        raise Bad("not positive", f"{name} is {shown(value)}", "a length or a count is never below 0")
    return number


def signed(value: Any, name: str) -> float:
    """A number that may be below 0, where that has a meaning (-1: all layers)."""
    return _number(value, name)


def count(value: Any, name: str) -> int:
    """A whole number above 0, which files may write as "4.0"."""
    number = figure(value, name)
    if number != int(number):
        raise Unusable("not a whole number", f"{name} {shown(value)}")
    return int(number)


def length(value: Any, name: str) -> float:
    """A mean length in tokens, above 0; one that is not there is no mistake, but leaves nothing to compare with."""
    if value is None or str(value).strip().lower() in ABSENT:
        raise Unusable("length not stated", name)
    return figure(value, name)


def _number(value: Any, name: str) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number):
        raise Bad("not a number", f"{name} is {shown(value)}", "expected a number with a decimal point, without unit")
    if abs(number) > MOST:
        raise Bad("out of range", f"{name} is {shown(value)}", "check the unit of the column")
    return number


def decimal_commas(cells: list[str]) -> list[str]:
    """Cells of a file that separates with semicolons, where 12,5 means 12.5."""
    return [re.sub(r"^(\s*-?\d+),(\d+\s*)$", r"\1.\2", cell) for cell in cells]
