"""Prediction intervals: how far forecasts spread over what a profile holds possible, and how wide that makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from sim.errors import RoofcastError, sentence, shown
from sim.lower import drawn_engines
from sim.numbers import as_array
from sim.point import Answer, evaluate
from sim.profiles import Profile, kind_of, width
from sim.profiles.rows import Quantity
from sim.request import Request

N_DRAWS = 32
LEAST_PERCENT = 10  # what is meant as a percentage: a level of less is nobody's
# Column -> the quantity whose interval it has, and the end of its name that is its unit.
BOUNDED: dict[str, tuple[Quantity, str]] = {
    **{name: (name, "s") for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s", "decode_step_s", "prefill_s")},
    "user_tokens_per_s": ("tpot_s", "tokens_per_s"),
    "output_tokens_per_s": ("output_tokens_per_s", "tokens_per_s"),
    "total_tokens_per_s": ("total_tokens_per_s", "tokens_per_s"),
}
Columns = Mapping[str, np.ndarray]


def check_level(level: Any, profile: Profile | None) -> float:
    """The level, if it is a number between 0 and 1 for which the profile has intervals; else RoofcastError."""
    number = as_level(level)
    for quantity, _ in BOUNDED.values():
        width(profile, quantity, number)
    return number


def as_level(level: Any) -> float:
    """The level, if it is a number between 0 and 1; else RoofcastError."""
    array = as_array(level)
    if array is None or array.ndim or not 0 < array < 1:
        percent = array is not None and not array.ndim and LEAST_PERCENT <= array < 100
        hint = f"take {array / 100:g}" if percent else "take a fraction between 0 and 1, such as 0.8"
        raise RoofcastError(
            sentence(f"expected a level between 0 and 1, as in 0.8, found {shown(level)}", "interval", hint)
        )
    return float(array)


def note(level: float) -> str:
    """What the intervals of a result are, as its provenance says it."""
    return f"interval: {100 * level:g} %, from the profile's errors on held-out measurements"


def end(column: str, which: str) -> str:
    """Name of a column's `low` or `high` end, its unit last: tpot_low_s, output_high_tokens_per_s."""
    unit = BOUNDED[column][1]
    return f"{column.removesuffix(unit)}{which}_{unit}"


def bounds(
    request: Request, columns: Columns, level: float, speed: Callable[[Answer], Columns]
) -> dict[str, np.ndarray]:
    """Columns of the low and high ends: forecast · exp(∓ width · √(noise² + variance of the log over draws)).

    columns: the forecasts, of which speed(answer) computes the same ones under a drawn engine.
    """
    widths = {name: width(request.profile, quantity, level) for name, (quantity, _) in BOUNDED.items()}
    variance = _log_variance(request, columns, speed)
    ends: dict[str, np.ndarray] = {}
    for name, (noise, half) in widths.items():
        factor = np.exp(half * np.sqrt(noise**2 + variance[name]))
        ends |= {end(name, "low"): columns[name] / factor, end(name, "high"): columns[name] * factor}
    return ends


def _log_variance(request: Request, columns: Columns, speed: Callable[[Answer], Columns]) -> dict[str, np.ndarray]:
    """Variance of the log of each forecast over the draws, by the kernel that is compiled already."""
    assert request.profile is not None
    total, squares = dict.fromkeys(BOUNDED, np.zeros(())), dict.fromkeys(BOUNDED, np.zeros(()))
    for engine in drawn_engines(request.engine, request.machine, request.profile, kind_of(request.model), N_DRAWS):
        found = speed(evaluate(replace(request.setup, engine=engine), request.points))
        for name in BOUNDED:
            apart = np.log(np.asarray(found[name], np.float64) / columns[name])
            total[name], squares[name] = total[name] + apart, squares[name] + apart**2
    return {name: np.maximum(squares[name] / N_DRAWS - (total[name] / N_DRAWS) ** 2, 0) for name in BOUNDED}
