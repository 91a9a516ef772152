"""Whether forecasts rank the layouts of one deployment as measurements do, and how far measurements agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

from sim.accuracy.heads import is_silicon
from sim.measure import Measurement
from sim.scores import rank_correlation

LEAST_LAYOUTS = 3
SAME_RUN = 1e-3
Run = tuple[Measurement, float, float, float, float]  # a row; TPOT and TTFT measured, and forecast


def layout_ranks(rows: Sequence[Measurement], log_error: np.ndarray) -> dict[str, float]:
    """Mean of Spearman's ρ over groups of one model, device, engine, lengths and users with at least three layouts.

    A layout: tp, ep, dp and precision. Ranked by tokens/s of a GPU, users · output / (TTFT + (output − 1) · TPOT),
    and by 1 / TPOT of a GPU alone.
    """
    groups: dict[tuple, dict[tuple, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in _runs(rows, log_error):
        row = run[0]
        same = (row.model, row.machine.split("x ")[-1], row.engine, row.prompt, row.output, row.concurrency)
        groups[same][row.tp, row.ep, row.dp, row.weights].append(run)
    ranked = [list(layouts.values()) for layouts in groups.values() if len(layouts) >= LEAST_LAYOUTS]
    found: dict[str, float] = {"groups": len(ranked)}
    for name, rate in (("throughput", _tokens_per_s), ("tpot", lambda row, tpot_s, _: 1.0 / tpot_s)):
        correlations = [_correlation(layouts, rate) for layouts in ranked]
        known = [value for value in correlations if np.isfinite(value)]
        found[name] = float(np.mean(known)) if known else float("nan")
    return found


def _runs(rows: Sequence[Measurement], log_error: np.ndarray) -> list[Run]:
    """Runs whose TPOT and TTFT were both measured."""
    figures: dict[tuple[str, int], dict[str, int]] = defaultdict(dict)
    for index, row in enumerate(rows):
        if is_silicon(row, row.quantity):
            figures[row.file, row.line][row.quantity] = index
    both = [(of["tpot_s"], of["ttft_s"]) for of in figures.values() if {"tpot_s", "ttft_s"} <= set(of)]
    forecast = np.exp(log_error) * np.asarray([row.value for row in rows])
    return [(rows[i], rows[i].value, rows[j].value, float(forecast[i]), float(forecast[j])) for i, j in both]


def _tokens_per_s(row: Measurement, tpot_s: float, ttft_s: float) -> float:
    return row.concurrency * row.output / (ttft_s + (row.output - 1) * tpot_s)


def _correlation(layouts: list[list[Run]], rate: Callable[[Measurement, float, float], float]) -> float:
    """Over layouts, each with the mean of its runs, per GPU."""
    sides = []
    for tpot, ttft in ((1, 2), (3, 4)):
        per_gpu = [
            np.mean([rate(run[0], run[tpot], run[ttft]) / (run[0].tp * run[0].pp * run[0].dp) for run in runs])
            for runs in layouts
        ]
        sides.append(np.asarray(per_gpu))
    return rank_correlation(*sides)


def repeatability(rows: Sequence[Measurement], quantity: str) -> dict[str, float]:
    """How far runs of one configuration and load differ: median of |log ratio| over their pairs, and their number.

    Two that agree to a thousandth are one run, published twice.
    """
    same: dict[tuple, list[float]] = defaultdict(list)
    for row in rows:
        if is_silicon(row, quantity):
            load = (row.concurrency, row.prompt, row.output, row.n_requests, *sorted(row.limits.items()))
            same[(*row.group(), *load)].append(row.value)
    apart = [abs(np.log(a / b)) for values in same.values() for a, b in combinations(values, 2)]
    apart = [difference for difference in apart if difference > SAME_RUN]
    return {"pairs": len(apart), "apart_frac": float(np.median(apart)) if apart else float("nan")}
