"""The fast logarithms and exponentials beside NumPy's in float64."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import elementary
from kernels.roofline import smooth_max

RTOL = 3e-7
DOMAINS = {
    "log1p": np.concatenate([np.geomspace(1e-37, 3e38, 40_001), -np.geomspace(1e-37, 0.999, 20_001)]),
    "expm1": np.concatenate([np.linspace(-100.0, 88.0, 40_001), -np.geomspace(1e-37, 1.0, 20_001)]),
}
seconds = st.one_of(st.just(0.0), st.floats(1e-12, 1e6))


@pytest.mark.parametrize("name", DOMAINS)
def test_float32(name):
    x = DOMAINS[name].astype(np.float32)
    found = jax.jit(getattr(elementary, name))(x)
    chex.assert_type(found, jnp.float32)
    np.testing.assert_allclose(found, getattr(np, name)(x.astype(np.float64)), rtol=RTOL)


def test_powers_of_2():
    x = np.linspace(-125.9, 127.0, 40_001).astype(np.float32)
    np.testing.assert_allclose(elementary.exp2(x), np.exp2(x.astype(np.float64)), rtol=RTOL)
    assert elementary.exp2(jnp.float32(-1e9)) == np.float32(2.0**-126)


@given(st.floats(2.0**-120, 2.0**120, width=32), st.floats(2.0**-120, 2.0**120, width=32))
def test_logarithm_of_a_ratio(a, b):
    found = elementary.log2_ratio(jnp.float32(a), jnp.float32(b))
    np.testing.assert_allclose(found, np.log2(a) - np.log2(b), rtol=RTOL, atol=1e-7)


@pytest.mark.parametrize("name", DOMAINS)
def test_float64_is_that_of_jax(name):
    with jax.enable_x64(True):
        x = jnp.asarray(DOMAINS[name][::97], jnp.float64)
        np.testing.assert_array_equal(getattr(elementary, name)(x), getattr(jnp, name)(x))


@pytest.mark.parametrize("name", DOMAINS)
def test_slopes_are_those_of_jax(name):
    x = jnp.asarray(DOMAINS[name][::997], jnp.float32)
    slopes = [jax.vmap(jax.grad(getattr(module, name)))(x) for module in (elementary, jnp)]
    np.testing.assert_allclose(*slopes, rtol=2e-6)


def test_numbers_of_python_are_taken():
    assert float(elementary.expm1(0)) == 0.0 and float(elementary.log1p(0)) == 0.0


@given(seconds, seconds, st.floats(1.0, 20.0))
def test_smooth_max_is_the_norm(a, b, p):
    large, small = max(a, b), min(a, b)
    expected = large * (1.0 + (small / large) ** p) ** (1.0 / p) if large else 0.0
    np.testing.assert_allclose(smooth_max(jnp.float32(a), jnp.float32(b), jnp.float32(p)), expected, rtol=1e-6)
    slopes = jax.grad(smooth_max, argnums=(0, 1, 2))(jnp.float32(a), jnp.float32(b), jnp.float32(p))
    assert np.all(np.isfinite(slopes))
