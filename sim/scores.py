"""Errors of forecasts against measurements, over a group of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Score:
    """Of e = forecast / measured − 1 over some rows: median |e|, mean |e|, median e (bias: above 0 is too high), and
    the 90th percentile of |e|; Spearman's rank correlation of forecast and measurement (NaN for fewer than three
    rows); share of rows inside their interval (NaN without one).
    """

    rows: int
    median_frac: float
    mean_frac: float
    bias_frac: float
    p90_frac: float
    rank: float
    coverage_frac: float


def score(log_error: np.ndarray, measured: np.ndarray, inside: np.ndarray | None = None) -> Score:
    """log_error: (M,) logarithms of forecast over measurement, M > 0; inside: (M,) whether the interval holds it."""
    error = np.expm1(log_error)
    size = np.abs(error)
    return Score(
        rows=len(error),
        median_frac=float(np.median(size)),
        mean_frac=float(np.mean(size)),
        bias_frac=float(np.median(error)),
        p90_frac=float(np.quantile(size, 0.9)),
        rank=rank_correlation(measured, measured * np.exp(log_error)),
        coverage_frac=float(np.mean(inside)) if inside is not None else float("nan"),
    )


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's ρ, ties at their mean rank; NaN for fewer than three values, or where one side is constant."""
    if len(a) < 3:
        return float("nan")
    x, y = (_ranks(values) - (len(a) + 1) / 2 for values in (a, b))
    spread = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / spread if spread > 0 else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    """1 for the least; equal values share the mean of their ranks."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[which]
