"""Errors on rows that a fit has not seen, and intervals that cover as many of them as they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kernels.observe import QUANTITIES
from sim.calibration.fit import Fit, Progress, fit, log_errors
from sim.calibration.parameters import Pooling
from sim.calibration.table import Table
from sim.intervals import N_DRAWS
from sim.profiles.rows import Interval

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
NOISES = np.geomspace(0.01, 0.5, 60)
LEAST_WIDTH, GROWTH = 1e-3, 1.002  # so that widths still increase when they are written with four digits


@dataclass(frozen=True)
class HeldOut:
    """Of each row (M,): log of forecast over measurement, and the standard deviation of the log forecast, by a fit
    that has not seen its fold; and the fold.
    """

    log_error: np.ndarray
    spread: np.ndarray
    fold: np.ndarray


def held_out(
    table: Table, pooling: Pooling, weights: np.ndarray, fold: np.ndarray, progress: Callable[[int], Progress]
) -> HeldOut:
    """One fit a fold, on the rows outside it; progress: gives the k-th fit its own."""
    log_error, spread = np.empty(len(fold)), np.empty(len(fold))
    for k, left_out in enumerate(np.unique(fold)):
        judged = fold == left_out
        found = fit(table, pooling, np.where(judged, 0.0, weights).astype(np.float32), progress(k))
        errors = log_errors(table, pooling, found.z)
        log_error[judged] = errors[judged]
        spread[judged] = spread_of(table, pooling, found)[judged]
    return HeldOut(log_error, spread, fold)


def spread_of(table: Table, pooling: Pooling, found: Fit) -> np.ndarray:
    """(M,) standard deviation of the log forecast over draws of the parameters."""
    normals = np.random.default_rng(0).standard_normal((N_DRAWS, len(found.z)))
    # Compiling a pass without gradients costs 2 to 4 s, and saves that much from ten thousand rows on.
    draws = np.stack([log_errors(table, pooling, (found.z + found.sd * n).astype(np.float32)) for n in normals])
    return draws.std(axis=0)


def intervals(table: Table, held: HeldOut) -> dict[str, Interval]:
    """For each quantity the noise that makes held-out errors likeliest, and the widths that cover each level."""
    found = {}
    for q in np.unique(table.arrays.quantity):
        rows = table.arrays.quantity == q
        found[QUANTITIES[q]] = _interval(held.log_error[rows], held.spread[rows])
    return found


def covered(table: Table, held: HeldOut, level: float) -> np.ndarray:
    """(M,) whether each held-out row is inside an interval of `level` whose widths come from the other folds."""
    inside = np.zeros(len(held.fold), bool)
    for k in np.unique(held.fold):
        for q in np.unique(table.arrays.quantity):
            own = table.arrays.quantity == q
            judged, rest = own & (held.fold == k), own & (held.fold != k)
            if judged.any() and rest.any():
                interval = _interval(held.log_error[rest], held.spread[rest])
                half = np.interp(level, interval.levels, interval.widths)
                scale = np.hypot(interval.noise, held.spread[judged])
                inside[judged] = np.abs(held.log_error[judged]) <= half * scale
    return inside


def _interval(log_error: np.ndarray, spread: np.ndarray) -> Interval:
    size = np.abs(log_error)
    scales = np.hypot(NOISES[:, None], spread[None])
    likelihood = -np.log(scales) - np.log1p((size / scales) ** 2)  # of Cauchy's law: a few rows are far off
    noise = float(NOISES[np.argmax(likelihood.mean(axis=1))])
    widths = [max(float(np.quantile(size / np.hypot(noise, spread), LEVELS[0])), LEAST_WIDTH)]
    for level in LEVELS[1:]:
        widths.append(max(float(np.quantile(size / np.hypot(noise, spread), level)), GROWTH * widths[-1]))
    return Interval(noise=noise, levels=LEVELS, widths=tuple(widths))
