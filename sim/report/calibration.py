"""What a calibration found, as a table for people and as plain values."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Group
from rich.text import Text

from sim.calibration.written import Pin
from sim.report.number import show
from sim.report.table import Column, grid
from sim.verbs.calibrate import Calibration

PINNED, LOOSE = 0.5, 0.9  # of the prior's spread: what the data determine, and what they say nothing on
MOST_PINS = 12
_COLUMNS = (
    Column("quantity", "quantity"),
    Column("rows", "rows"),
    Column("before_median_frac", "median\nbefore"),
    Column("after_median_frac", "median\nafter"),
    Column("before_mean_frac", "mean\nbefore"),
    Column("after_mean_frac", "mean\nafter"),
    Column("after_bias_frac", "bias\nafter"),
    Column("after_p90_frac", "90th per-\ncentile"),
    Column("after_coverage_frac", "inside 80 %\ninterval"),
)


def calibration_view(found: Calibration) -> Group:
    """Errors before and after, and the parameters that the data pinned down, or else those that moved."""
    parts: list[Any] = []
    if found.errors:
        title = f"Errors on rows held out, with {found.profile.base or 'the catalogue'} and with {found.profile.name}"
        parts += [grid(_COLUMNS, _error_rows(found), title), Text("")]
    counts = _counts(found)
    known = f"{counts['pinned']:,} pinned down, {counts['between']:,} informed, {counts['at the prior']:,} at the prior"
    parts.append(Text(f"Parameters: {known}"))
    pinned = [str(pin) for pin in found.pins if pin.of_prior_frac < PINNED]
    if not pinned:
        told = "moved together nonetheless, over the catalogue's figures:" if _moved(found) else "none moved"
        parts.append(Text(f"These rows pin down no single one; {told}"))
    lines = pinned or [pin.change() for pin in _moved(found)]
    parts += [Text(f"  {line}") for line in lines[:MOST_PINS]]
    if len(lines) > MOST_PINS:
        parts.append(Text(f"  and {len(lines) - MOST_PINS:,} more: --format json lists all"))
    return Group(*parts)


def calibration_document(found: Calibration) -> dict[str, Any]:
    """The same and everything beside it as plain values."""
    pinned = [pin for pin in found.pins if pin.of_prior_frac <= LOOSE]
    unused = Counter((row.reason, row.detail) for row in found.unused)
    return {
        "profile": found.profile.name,
        "base": found.profile.base,
        "data": [row.model_dump(exclude={"fingerprints"}) for row in found.profile.data],
        "errors": [{name: _plain(value) for name, value in row.items()} for row in _error_rows(found)],
        "parameters": _counts(found),
        "pinned": [{"text": str(pin)} | asdict(pin) for pin in pinned],
        "moved": [{"text": pin.change()} | asdict(pin) for pin in _moved(found)],
        "unused": [{"reason": why, "detail": detail, "rows": n} for (why, detail), n in unused.most_common()],
        "problems": list(found.problems),
        "notes": list(found.notes),
    }


def unused_note(found: Calibration) -> list[str]:
    """Rows that took no part, counted by reason."""
    reasons = Counter(row.reason for row in found.unused)
    counted = ", ".join(f"{reason} ({show('rows', n)})" for reason, n in reasons.most_common())
    return [f"{len(found.unused):,} rows took no part: {counted}"] if reasons else []


def _error_rows(found: Calibration) -> list[dict[str, Any]]:
    rows = []
    for of in found.errors:
        sides = {"before": asdict(of.before), "after": asdict(of.after)}
        figures = {f"{side}_{name}": value for side, values in sides.items() for name, value in values.items()}
        rows.append({"quantity": of.quantity, "rows": of.after.rows} | figures)
    return rows


def _moved(found: Calibration) -> list[Pin]:
    """Parameters that the fit changed, the farthest first."""
    return sorted((pin for pin in found.pins if pin.moved), key=lambda pin: -abs(np.log(pin.factor / pin.before)))


def _counts(found: Calibration) -> dict[str, int]:
    left = np.asarray([pin.of_prior_frac for pin in found.pins])
    pinned, loose = int((left < PINNED).sum()), int((left > LOOSE).sum())
    return {"pinned": pinned, "between": len(left) - pinned - loose, "at the prior": loose}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value
