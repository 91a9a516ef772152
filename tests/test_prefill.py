"""Prompts behind a cached context: against the float64 oracle, and laws."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.prefill import prefill_at_depth_s
from tests import draw
from tests.oracle import prefill as slow_prefill

RTOL = 4e-6
SLACK = 1.0 + 1e-5
pytestmark = pytest.mark.usefixtures("no_nans")
machines = st.tuples(draw.models(), draw.devices(), draw.engines(), draw.layouts())
prompts = st.tuples(st.integers(1, 8), st.integers(1, 3000), st.integers(0, 9000))
compiled = jax.jit(prefill_at_depth_s)
gradient = jax.jit(jax.grad(prefill_at_depth_s, argnums=(2, 4, 5, 6)))


def seconds(machine: tuple, *numbers: float) -> float:
    """Of so many prompts, of so many tokens, behind so many."""
    return float(compiled(*machine, *map(np.float32, numbers)))


@given(machines, prompts)
def test_prefill_at_depth(machine: tuple, prompt: tuple) -> None:
    np.testing.assert_allclose(seconds(machine, *prompt), slow_prefill.prefill_s(*machine, *prompt), rtol=RTOL)


@given(machines, prompts, st.integers(1, 5000))
def test_deeper_and_longer_and_more_is_never_faster(machine: tuple, prompt: tuple, more: int) -> None:
    model, device, engine, layout = machine
    # In a pipeline, more but smaller chunks can overlap better; ranks are taken to be equally loaded.
    alone = {name: np.float32(1) for name in ("pp", "dp", "ep")}
    machine = (model, device, engine, replace(layout, **alone))
    n, tokens, depth = prompt
    base = seconds(machine, *prompt)
    assert seconds(machine, n, tokens, depth + more) * SLACK >= base
    assert seconds(machine, n, tokens + more, depth) * SLACK >= base
    assert seconds(machine, n + 1, tokens, depth) * SLACK >= base


@given(machines, prompts, draw.between(1.01, 10))
def test_scores_in_memory_and_weights_made_resident_take_time(machine: tuple, prompt: tuple, factor: float) -> None:
    model, device, engine, layout = machine
    held = replace(engine, score_bytes=np.float32(0), residency_s_per_byte=np.float32(0))
    base = seconds((model, device, held, layout), *prompt)
    for name, value in (("score_bytes", 16.0), ("residency_s_per_byte", 1e-11)):
        slower = replace(held, **{name: np.float32(value * factor)})
        assert seconds((model, device, slower, layout), *prompt) * SLACK >= base


@given(machines, prompts)
def test_gradients_are_finite(machine: tuple, prompt: tuple) -> None:
    found = gradient(*machine, *map(np.float32, prompt))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))
