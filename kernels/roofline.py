"""Seconds from work and machine."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def smooth_max(a: Array, b: Array, sharpness: Array) -> Array:
    """The p-norm (aᵖ + bᵖ)^(1/p) of two times ≥ 0: their sum at p = 1, their maximum as p → ∞.

    A GEMM overlaps its loads with its multiplications only in part; p measures how well (physics prior 1.2).
    Written on the ratio of the smaller to the larger, so that it neither overflows nor has a NaN gradient at 0.
    """
    high = jnp.maximum(a, b)
    low = jnp.minimum(a, b)
    safe = jnp.where(high > 0, high, 1.0)
    ratio = jnp.where(low > 0, low / safe, 1.0)
    scale = jnp.exp(jnp.log(1.0 + jnp.exp(sharpness * jnp.log(ratio))) / sharpness)
    return jnp.where(low > 0, high * scale, high)


def divide(amount: Array, rate: Array) -> Array:
    """amount / rate, where nothing to do takes no time even at rate 0, and something at rate 0 takes for ever."""
    possible = rate > 0
    quotient = amount / jnp.where(possible, rate, 1.0)
    return jnp.where(possible, quotient, jnp.where(amount > 0, jnp.inf, 0.0))
