"""The steady state and its costs in float32 against the float64 oracle, and the laws of a closed loop."""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.economics import economics
from kernels.memory import memory
from kernels.steady import steady
from kernels.types import Economics, Steady
from tests import draw
from tests.oracle import economics as slow_economics
from tests.oracle import steady as slow_steady

RTOL = 2e-6
pytestmark = pytest.mark.usefixtures("no_nans")
COMPARED = ("running_sequences", "ttft_s", "tpot_s", "e2e_s", "decode_step_s", "prefill_s", "requests_per_s",
            "mbu_frac", "mfu_frac")  # fmt: skip


@jax.jit
def loop(model, device, engine, layout, load) -> tuple[Steady, jax.Array]:
    """Steady state, and the bytes of the KV pool that it rests on."""
    mem = memory(model, device, engine, layout, load)
    return steady(model, device, engine, layout, load, mem), mem.pool_bytes


# The queue's ρ/(1 − ρ), with ρ up to 0.95, magnifies the rounding of ρ twenty times.
RTOLS = {np.float32: {"ttft_s": 5e-5, "e2e_s": 5e-5, "requests_per_s": 5e-5}, np.float64: {}}


@pytest.mark.parametrize("dtype", RTOLS)
@given(
    st.tuples(
        draw.models(),
        draw.devices(),
        draw.engines(),
        draw.layouts(),
        draw.workloads(3000, st.sampled_from([np.inf, 40, 10000])),
    )
)
def test_steady(dtype: type, arguments: tuple) -> None:
    with jax.enable_x64(dtype is np.float64):
        found, pool = loop(*jax.tree.map(lambda leaf: draw.to(leaf, dtype), arguments))
        expected = slow_steady.steady(*arguments, float(pool))
        for name in COMPARED:
            values = getattr(found, name), getattr(expected, name)
            atol = 1e-6 if name.endswith("_frac") else 0.0
            np.testing.assert_allclose(*values, rtol=RTOLS[dtype].get(name, RTOL), atol=atol, err_msg=name)


@given(draw.devices(), draw.engines(), draw.layouts(), draw.workloads(), draw.between(1e-3, 1), draw.between(1e-3, 1),
       draw.between(1e-4, 1e4), draw.between(1e-5, 1e-2), draw.between(1e-8, 1e-6))  # fmt: skip
def test_economics(device, engine, layout, load, mbu, mfu, rate, usd_per_s, usd_per_j) -> None:
    use = {"mbu_frac": mbu, "mfu_frac": mfu, "requests_per_s": rate}
    state = Steady(**{f.name: np.float32(use.get(f.name, 0.0)) for f in fields(Steady)})
    found = jax.jit(economics)(device, engine, layout, load, state, np.float32(usd_per_s), np.float32(usd_per_j))
    expected = slow_economics.economics(device, engine, layout, load, SimpleNamespace(**use), usd_per_s, usd_per_j)
    for name in (f.name for f in fields(Economics)):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=RTOL, err_msg=name)
