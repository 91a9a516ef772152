"""Seconds from work and machine."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernels.elementary import exp2, log2_ratio

LEAST = float(np.finfo(np.float32).tiny)  # in place of 0, whose logarithm has no slope
CENTRE, REACH = math.log(1.5), 1.0 / 3.0  # 1 + x = 1.5·(1 + z/3) with z = 2x − 1, from −1 to 1 as x goes from 0 to 1
TERMS = 12  # of a binomial series, of which the next is below 1e-8


def smooth_max(a: Array, b: Array, sharpness: Array) -> Array:
    """The p-norm (aᵖ + bᵖ)^(1/p) of two times ≥ 0: their sum at p = 1, their maximum as p → ∞.

    A GEMM overlaps its loads with its multiplications only in part; p measures how well (physics prior 1.2).
    Written on the ratio of the smaller to the larger, so that it neither overflows nor has a NaN gradient at 0.
    """
    return smooth_max_by(root(sharpness), a, b, sharpness)


def root(p: Array) -> tuple[Array, ...]:
    """Coefficients by z = 2x − 1 of ((1 + x)^(1/p) − 1)/2x, for x from 0 to 1.

    The binomial series about the middle, divided by z + 1, so that the root of 1 is exactly 1.
    """
    power = 1.0 / p
    terms = [jnp.exp(power * CENTRE)]
    for k in range(1, TERMS):
        terms.append(terms[-1] * ((power - (k - 1)) * (REACH / k)))
    quotient = [terms[-1]]
    for term in terms[-2:0:-1]:
        quotient.append(term - quotient[-1])
    return tuple(quotient[::-1])


@jax.custom_jvp
def smooth_max_by(roots: tuple[Array, ...], a: Array, b: Array, sharpness: Array) -> Array:
    """`smooth_max` with the `root` of its sharpness, where many have the same."""
    if jnp.result_type(a, b, sharpness) != jnp.float32:
        return _norm(a, b, sharpness)[0]
    a, b = jnp.float32(a), jnp.float32(b)
    ratio = exp2(-sharpness * jnp.abs(log2_ratio(a, b)))
    z, value = 2.0 * ratio - 1.0, roots[-1]
    for coefficient in roots[-2::-1]:
        value = value * z + coefficient
    return jnp.maximum(a, b) * (1.0 + 2.0 * ratio * value)


def _norm(a: Array, b: Array, p: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    """(the same by logarithms of any type, its slopes)."""
    high, low = jnp.maximum(a, b), jnp.minimum(a, b)
    some = jnp.where(high > 0, high, 1.0)
    log_ratio = jnp.log(jnp.maximum(low / some, LEAST))
    ratio = jnp.exp(p * log_ratio)
    norm = high * jnp.exp(jnp.log1p(ratio) / p)
    of_high = norm / some / (1.0 + ratio)
    of_low = of_high * jnp.exp((p - 1.0) * log_ratio)
    of_p = norm / p * (ratio / (1.0 + ratio) * log_ratio - jnp.log1p(ratio) / p)
    swapped = a < b
    return norm, (jnp.where(swapped, of_low, of_high), jnp.where(swapped, of_high, of_low), of_p)


@smooth_max_by.defjvp
def _slope(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    value, slopes = smooth_max_by(*primals), _norm(*primals[1:])[1]
    return value, jnp.broadcast_to(sum(s * t for s, t in zip(slopes, tangents[1:], strict=True)), jnp.shape(value))


def divide(amount: Array, rate: Array) -> Array:
    """amount / rate, where nothing to do takes no time even at rate 0, and something at rate 0 takes for ever."""
    possible = rate > 0
    quotient = amount / jnp.where(possible, rate, 1.0)
    return jnp.where(possible, quotient, jnp.where(amount > 0, jnp.inf, 0.0))
