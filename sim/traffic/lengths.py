"""Lengths of prompts and outputs, drawn by a table of lengths."""

from __future__ import annotations

from math import log, log1p, sqrt

import numpy as np

from sim.bounds import MOST_TOKENS
from sim.traffic.tables import Lengths

Z95 = 1.6448536269514722  # 95th percentile of the standard normal distribution


def draw_lengths(lengths: Lengths, n: int, generator: np.random.Generator, recorded: np.ndarray | None) -> np.ndarray:
    """(n,) int32 tokens, at least 1; a longer draw begins with a shorter one. recorded: those that a path names."""
    low, high = lengths.min_tokens or 1, lengths.max_tokens or MOST_TOKENS
    if lengths.tokens is not None:
        return np.full(n, lengths.tokens, np.int32)
    if recorded is not None:
        found = recorded[generator.integers(0, len(recorded), n)]
    elif (shape := _lognormal(lengths)) is not None:
        mu, sigma = shape
        found = np.rint(np.exp(np.minimum(mu + sigma * generator.standard_normal(n), log(MOST_TOKENS))))
    else:
        found = generator.integers(low, high, n, endpoint=True)
    return np.clip(found, low, high).astype(np.int32)


def described(lengths: Lengths) -> str:
    """The lengths in a few words."""
    given = lengths.model_dump(exclude_none=True, exclude={"column"})
    if lengths.tokens is not None:
        return f"{lengths.tokens:,} tokens"
    kind = "as in" if lengths.path else "lognormal with" if _lognormal(lengths) else "uniform with"
    return f"{kind} " + ", ".join(v if k == "path" else f"{k} {v:g}" for k, v in given.items())


def _lognormal(lengths: Lengths) -> tuple[float, float] | None:
    """(μ, σ) of the logarithm: σ² = ln(1 + cv²) and μ = ln mean - σ²/2, or μ = ln median and σ = ln(p95/median)/z."""
    if lengths.mean_tokens is not None and lengths.cv is not None:
        variance = log1p(lengths.cv**2)
        return log(lengths.mean_tokens) - variance / 2, sqrt(variance)
    if lengths.median_tokens is not None and lengths.p95_tokens is not None:
        return log(lengths.median_tokens), log(lengths.p95_tokens / lengths.median_tokens) / Z95
    return None if lengths.mu is None or lengths.sigma is None else (lengths.mu, lengths.sigma)
