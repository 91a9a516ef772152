"""Numbers as people read them: three significant digits and a unit, chosen by the end of a column's name."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from sim.units import GB, MICRO, MILLI, TERA

ABSENT = "-"
RECORDED = "times the recorded rate"  # what the loads of a trace count
_ONE = {"requests/s": "1 request/s", "users": "1 user", "replicas": "1 replica", RECORDED: "the recorded rate"}
_PREFIXES = {-9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}

# End of a column's name -> (style, factor to the unit that is printed, that unit).
_FORMS: dict[str, tuple[str, float, str]] = {
    "bytes": ("prefixed up", 1.0, "B"),
    "gb": ("prefixed up", GB, "B"),
    "bytes_per_s": ("prefixed up", 1.0, "B/s"),
    "gb_per_s": ("prefixed up", GB, "B/s"),
    "bytes_per_token": ("prefixed up", 1.0, "B/token"),
    "flops": ("prefixed up", 1.0, "FLOP"),
    "flops_per_s": ("prefixed up", 1.0, "FLOP/s"),
    "tflops": ("prefixed up", TERA, "FLOP/s"),
    "s": ("time", 1.0, "s"),
    "seconds": ("time", 1.0, "s"),
    "ms": ("time", MILLI, "s"),
    "us": ("time", MICRO, "s"),
    "j": ("prefixed", 1.0, "J"),
    "joules_per_token": ("prefixed", 1.0, "J/token"),
    "w": ("prefixed", 1.0, "W"),
    "usd": ("money", 1.0, ""),
    "usd_per_hour": ("money", 1.0, "/h"),
    "usd_per_mtok": ("money", 1.0, "/Mtok"),
    "usd_per_mtok_total": ("money", 1.0, "/Mtok"),
    "frac": ("percent", 100.0, "%"),
    "tokens": ("count", 1.0, " tokens"),
    "tokens_per_s": ("plain", 1.0, " tok/s"),
    "requests_per_s": ("plain", 1.0, " req/s"),
    "params": ("params", 1.0, ""),
}


def significant(value: float) -> str:
    """`value` with three significant digits, thousands grouped, never an exponent: 1234.5 -> "1,230"."""
    if value == 0:
        return "0"
    rounded = round(value, 2 - _magnitude(value))
    return f"{rounded:,.{max(2 - _magnitude(rounded), 0)}f}"


def prefixed(value: float, unit: str, lowest: int = -9) -> str:
    """`value` with three significant digits and a decimal prefix of at least 10^`lowest`: 7.06e10 -> "70.6 GB"."""
    if value == 0:
        return f"0 {unit}"
    rounded = round(value, 2 - _magnitude(value))
    power = min(max(3 * (_magnitude(rounded) // 3), lowest), max(_PREFIXES))
    return f"{significant(value / 10.0**power)} {_PREFIXES[power]}{unit}"


def form(column: str) -> tuple[str, float, str] | None:
    """How to print a column: (style, factor, unit) of the longest known ending of its name, or None."""
    for name in (column, column.rpartition(".")[0]):
        leaf = name.rpartition(".")[2]
        known = [end for end in _FORMS if leaf == end or leaf.endswith(f"_{end}")]
        if known:
            return _FORMS[max(known, key=len)]
    return None


def show(column: str, value: Any) -> str:
    """One cell of a table with its unit: `show("ttft_s", 0.0123)` -> "12.3 ms"; what is absent is "-"."""
    if value is None or (isinstance(value, Real) and not isinstance(value, Integral) and not math.isfinite(value)):
        return ABSENT
    if not isinstance(value, Real):
        return str(value) or ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    known = form(column)
    if known is None:
        return f"{int(value):,}" if isinstance(value, Integral) else significant(float(value))
    style, factor, unit = known
    return _STYLES[style](float(value) * factor, unit)


def many(n: int, what: str) -> str:
    """`1 deployment`, `1,234 deployments`."""
    return f"{n:,} {what}{'s' if n != 1 else ''}"


def show_load(value: float, unit: str) -> str:
    """A load in words: "16 requests/s", "1 user", "the recorded rate", "2.5 times the recorded rate"."""
    return _ONE.get(unit, f"1 {unit}") if value == 1 else f"{value:g} {unit}"


def show_found(value: float, bound: str = "") -> str:
    """The highest load, or the fewest replicas, that keep to the objectives; 0 stands for none. bound: "≤" or "≥"."""
    return f"{bound} {value:g}".lstrip() if value > 0 else "none"


def bare(column: str, value: Any) -> str:
    """The cell without its unit, for columns whose heading carries it: `bare("user_tokens_per_s", 41.23)` -> "41.2"."""
    text = show(column, value)
    known = form(column)
    if text == ABSENT or known is None:
        return text
    style, factor, _ = known
    return f"{round(value):,}" if style == "count" else significant(float(value) * factor)


def _magnitude(value: float) -> int:
    return int(f"{value:e}".rpartition("e")[2])


def _time(value: float, unit: str) -> str:
    return f"{significant(value)} {unit}" if abs(value) >= 1 else prefixed(value, unit)


def _money(value: float, unit: str) -> str:
    return f"{'-' if value < 0 else ''}${significant(abs(value))}{unit}"


def _params(value: float, unit: str) -> str:
    """Parameter counts, by their own custom: M, B and T."""
    return prefixed(value, unit, lowest=0).replace("G", "B").replace(" ", "")


_STYLES = {
    "prefixed": prefixed,
    "prefixed up": lambda value, unit: prefixed(value, unit, lowest=0),
    "time": _time,
    "money": _money,
    "percent": lambda value, unit: f"{significant(value)}{unit}",
    "count": lambda value, unit: f"{round(value):,}{unit}",
    "plain": lambda value, unit: f"{significant(value)}{unit}",
    "params": _params,
}
