"""Durations as people write them, with their unit: "200ms", "2s", "50us", "30m", "1h"."""

from __future__ import annotations

import re

from sim.units import LONG, SECONDS

_UNITS = SECONDS | LONG


def seconds(text: str) -> float | None:
    """Seconds of a duration such as "200ms", ".5s", "2 s", "90min" or "1h"; None where it cannot be read.

    m and min are minutes, d days of 24 hours.
    """
    match = re.fullmatch(rf"(\d+(?:\.\d+)?|\.\d+)\s*({'|'.join(_UNITS)})", text.strip().lower(), re.ASCII)
    return float(match[1]) * _UNITS[match[2]] if match else None
