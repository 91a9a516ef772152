"""Seconds from work and machine."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

from kernels.elementary import exp, log, log1p

LEAST = float(np.finfo(np.float32).tiny)  # in place of 0, whose logarithm has no slope


def smooth_max(a: Array, b: Array, sharpness: Array) -> Array:
    """The p-norm (aᵖ + bᵖ)^(1/p) of two times ≥ 0: their sum at p = 1, their maximum as p → ∞.

    A GEMM overlaps its loads with its multiplications only in part; p measures how well (physics prior 1.2).
    Written on the ratio of the smaller to the larger, so that it neither overflows nor has a NaN gradient at 0.
    """
    high, low = jnp.maximum(a, b), jnp.minimum(a, b)
    ratio = jnp.maximum(low / jnp.where(high > 0, high, 1.0), LEAST)
    return high * exp(log1p(exp(sharpness * log(ratio))) * (1.0 / sharpness))


def divide(amount: Array, rate: Array) -> Array:
    """amount / rate, where nothing to do takes no time even at rate 0, and something at rate 0 takes for ever."""
    possible = rate > 0
    quotient = amount / jnp.where(possible, rate, 1.0)
    return jnp.where(possible, quotient, jnp.where(amount > 0, jnp.inf, 0.0))
