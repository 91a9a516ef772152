"""What several replications say together: means, and the confidence interval of each."""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95
ENOUGH_REPLICATIONS = 3  # Student's t is 12.7 over two, 4.3 over three
_UNITS = (
    "_requests_per_s", "_tokens_per_s", "_per_token", "_per_hour", "_per_mtok", "_per_mtok_total", "_frac", "_per_s",
    "_s", "_w",
)  # fmt: skip


def mean_and_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, and the ends of its 95 % confidence interval over replications with different seeds: mean ± t·s/√R.

    values: (R,), none negative, so that the lower end is at least 0. Student's t with R − 1 degrees of freedom: values
    are means or percentiles of many requests, independent between seeds. NaN for what a replication does not have; no
    interval from fewer than two.
    """
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return np.nan, np.nan, np.nan
    mean = float(known.mean())
    if len(known) == 1:
        return mean, np.nan, np.nan
    half = float(stdtrit(len(known) - 1, (1 + CONFIDENCE) / 2) * known.std(ddof=1) / np.sqrt(len(known)))
    return mean, max(mean - half, 0.0), mean + half


def interval_names(name: str) -> tuple[str, str]:
    """Names of the two ends, the unit last: `ttft_p99_low_s` and `ttft_p99_high_s` of `ttft_p99_s`."""
    unit = next((unit for unit in _UNITS if name.endswith(unit)), "")
    stem = name.removesuffix(unit)
    return f"{stem}_low{unit}", f"{stem}_high{unit}"
