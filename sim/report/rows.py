"""The rows of measured files with their forecasts, as CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

from sim.results import Result

PLACE = ("file", "line")
ADDED = ("measured_column", "unit", "measured", "predicted", "error_frac", "low", "high", "used", "reason", "detail")


def rows_csv(result: Result) -> str:
    """A line for each row of `sim.validate`: file and line, the row's own columns, and what was found of it.

    measured, predicted, low and high are in the unit of the row's own measured column, which `unit` names. An own
    column that has the name of one of ours is called NAME_in_file.
    """
    own: list[dict[str, str]] = result.details["columns"]
    names = {name: f"{name}_in_file" if name in (*PLACE, *ADDED) else name for row in own for name in row}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*PLACE, *names.values(), *ADDED])
    for row, cells in zip(result.rows(), own, strict=True):
        found = row | {"measured_column": row["column"]}
        ends = ([_text(found[name]) for name in part] for part in (PLACE, ADDED))
        place, added = ends
        writer.writerow([*place, *(cells.get(name, "") for name in names), *added])
    return out.getvalue()


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
