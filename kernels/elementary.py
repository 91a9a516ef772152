"""Logarithms and exponentials of float32 in a third of the time that XLA takes for them on a CPU.

Polynomials without branches, which compilers turn into vector code, to a relative error of 3e-7; float64 goes to
`jax.numpy`. The polynomials interpolate in Chebyshev nodes of the reduced range. For finite arguments in the domains
named below; the logarithm of 0 is a finite one, about −88.
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
HALF_ROOT = math.sqrt(0.5)
HALF_ROOT_BITS = 0x3F3504F3  # √½ as float32
LEAST_POWER = -126.0  # of a normal float32


def _powers(function: Callable[[np.ndarray], np.ndarray], low: float, high: float, degree: int) -> tuple[float, ...]:
    return tuple(Chebyshev.interpolate(function, degree, (low, high)).convert(kind=Polynomial).coef)


LOG = _powers(lambda x: np.log1p(x) / x, HALF_ROOT - 1.0, 2.0 * HALF_ROOT - 1.0, 9)
EXP = _powers(lambda x: np.expm1(x) / x, -0.5 * LN2, 0.5 * LN2, 5)


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


def _log(x: Array, small: Array | None = None) -> Array:
    """small: x − 1, where that is known better than from x."""
    bits = lax.bitcast_convert_type(x, jnp.int32)
    exponent = (bits - HALF_ROOT_BITS) >> MANTISSA_BITS
    above = lax.bitcast_convert_type(bits - (exponent << MANTISSA_BITS), jnp.float32) - 1.0
    if small is not None:
        above = jnp.where(exponent == 0, small, above)
    return _horner(LOG, above) * above + exponent.astype(jnp.float32) * jnp.float32(LN2)


def _split(x: Array) -> tuple[Array, Array]:
    """(2ᵏ, eᶠ − 1) of eˣ = 2ᵏ·eᶠ."""
    x = jnp.maximum(x, LEAST_POWER * LN2)
    whole = jnp.round(x * jnp.float32(1.0 / LN2))
    rest = x - whole * jnp.float32(LN2_HIGH) - whole * jnp.float32(LN2 - LN2_HIGH)
    scale = lax.bitcast_convert_type((whole.astype(jnp.int32) + BIAS) << MANTISSA_BITS, jnp.float32)
    return scale, _horner(EXP, rest) * rest


def _exp(x: Array) -> Array:
    scale, more = _split(x)
    return scale * (1.0 + more)


def _expm1(x: Array) -> Array:
    scale, more = _split(x)
    return scale * more + (scale - 1.0)


log = _of_float32(_log, jnp.log, lambda x, _: 1.0 / x)  # of normal numbers > 0
log1p = _of_float32(lambda x: _log(1.0 + x, x), jnp.log1p, lambda x, _: 1.0 / (1.0 + x))  # x > −1
exp = _of_float32(_exp, jnp.exp, lambda _, value: value)  # x < 88; below −87 no less than 1e-38
expm1 = _of_float32(_expm1, jnp.expm1, lambda _, value: 1.0 + value)  # x < 88
