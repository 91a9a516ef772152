"""Gradients of the kernels: finite differences in float64, and finite wherever the forecast is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from kernels.economics import economics
from kernels.memory import memory
from kernels.roofline import smooth_max
from kernels.steady import steady
from kernels.step import step_time
from kernels.types import Workload
from kernels.work import clipped_pairs, combine, decode_load, prefill_load
from tests import draw
from tests.steps import experts_hit

RELATIVE_STEP = 1e-7
RTOL = 1e-6
RATES = np.float32(1e-3), np.float32(1e-7)


def step_seconds(model, device, engine, layout, load) -> jax.Array:
    """A step of decode beside half a prompt."""
    decode = decode_load(model, load.concurrency, load.context_tokens)
    mixed = combine(decode, prefill_load(model, load.prompt_tokens, load.output_tokens, 0.5 + load.concurrency))
    return step_time(model, device, engine, layout, mixed).total_s


def pool_bytes(model, device, engine, layout, load) -> jax.Array:
    """What the fullest device has left for the cache, less one sequence's."""
    mem = memory(model, device, engine, layout, load)
    return mem.pool_bytes + mem.sequence_kv_bytes + mem.sequence_state_bytes


def loop_outputs(model, device, engine, layout, load) -> jax.Array:
    """Latencies, rate, dollars and watts of a closed loop, as one number without a unit: Σ of their logarithms."""
    state = steady(model, device, engine, layout, load, memory(model, device, engine, layout, load))
    money = economics(device, engine, layout, load, state, *(jnp.asarray(r, load.concurrency.dtype) for r in RATES))
    parts = (state.ttft_s, state.tpot_s, state.e2e_s, state.requests_per_s, money.usd_per_token, money.power_w)
    return sum((jnp.log(part) for part in parts), start=jnp.zeros_like(state.tpot_s))


CONTINUOUS: dict[str, tuple[Callable, tuple]] = {
    "smooth_max": (smooth_max, (draw.between(1e-6, 1), draw.between(1e-6, 1), draw.between(1, 9))),
    "distinct_experts": (
        experts_hit,
        (draw.between(8, 512), draw.between(1, 7.9), draw.between(1, 1e4), draw.between(2e-3, 3)),
    ),
    "clipped_pairs": (clipped_pairs, (draw.between(0.3, 5e3), draw.between(0.7, 3e3), draw.between(0.9, 9e3))),
}
WHOLE: dict[str, Callable] = {"step_seconds": step_seconds, "pool_bytes": pool_bytes, "loop_outputs": loop_outputs}
machines = st.tuples(draw.models(), draw.devices(), draw.engines(), draw.layouts(), draw.workloads())
# Counts that only come whole, at which the kernels step: not moved by the finite difference.
COUNTS = ("n_layers", "attn_kv_heads", "attn_heads", "state_heads", "tokens_per_entry", "tp", "pp", "ep", "dp",
          "replicas", "n_blocks", "domain_devices", "link_mesh_links", "link_bus", "block_tokens",
          "graph_tokens",
          *draw.POLICIES)  # fmt: skip


def doubles(tree: Any) -> Any:
    """Leaves as float64 arrays; kernel indices stay integers."""
    return jax.tree.map(lambda leaf: jnp.asarray(draw.to(np.asarray(leaf), np.float64)), tree)


def waves(tree: Any, phase: float) -> Any:
    """A weight from −1 to 1 for every number of the tree, another for each; 0 where a count or an infinity is."""
    paths, treedef = jax.tree_util.tree_flatten_with_path(tree)
    weights = []
    for i, (path, leaf) in enumerate(paths):
        moves = jnp.issubdtype(leaf.dtype, jnp.floating) and getattr(path[-1], "name", "") not in COUNTS
        angles = phase + 2.0 * i + 0.7 * np.arange(leaf.size).reshape(leaf.shape)
        weights.append(np.where(np.isfinite(leaf) & moves, np.cos(angles), 0.0))
    return jax.tree.unflatten(treedef, weights)


def moved(tree: Any, weights: Any, by: float) -> Any:
    """Every float x becomes x·(1 + by·w)."""
    return jax.tree.map(lambda x, w: jnp.where(w == 0.0, x, x * (1.0 + by * w)).astype(x.dtype), tree, weights)


def slopes(gradient: Callable, arguments: tuple, weights: tuple) -> np.ndarray:
    """The terms x·w·∂f/∂x of the directional derivative."""
    gradients = jax.tree.leaves(gradient(*arguments))
    terms = [
        np.where(w != 0.0, np.where(w != 0.0, x, 0.0) * w * g, 0.0).ravel()
        for x, w, g in zip(jax.tree.leaves(arguments), jax.tree.leaves(weights), gradients, strict=True)
        if jnp.issubdtype(x.dtype, jnp.floating)
    ]
    return np.concatenate(terms)


@functools.cache
def differentiated(name: str) -> tuple[Callable, Callable]:
    """(function, its gradient in every argument), compiled."""
    function = WHOLE.get(name) or CONTINUOUS[name][0]

    def gradient(*arguments: Any) -> tuple:
        return jax.grad(function, argnums=tuple(range(len(arguments))), allow_int=True)(*arguments)

    return jax.jit(function), jax.jit(gradient)


def check_against_differences(name: str, arguments: tuple) -> None:
    """The directional derivative is that of a central difference, relative to the sum of its terms' sizes."""
    function, gradient = differentiated(name)
    arguments = moved(arguments, waves(arguments, 0.3), 0.01)  # off the kinks where two random bounds are equal
    weights = waves(arguments, 1.1)
    up, down = (float(function(*moved(arguments, weights, by))) for by in (RELATIVE_STEP, -RELATIVE_STEP))
    terms = slopes(gradient, arguments, weights)
    rounding = 1e-15 * (abs(up) + abs(down)) / RELATIVE_STEP
    error = abs((up - down) / (2.0 * RELATIVE_STEP) - terms.sum())
    assert error <= RTOL * np.abs(terms).sum() + 10.0 * rounding


@pytest.mark.parametrize("name", CONTINUOUS)
@given(st.data())
def test_small_kernels(name: str, data: st.DataObject) -> None:
    with jax.enable_x64(True):
        check_against_differences(name, doubles(tuple(data.draw(s) for s in CONTINUOUS[name][1])))


def between_steps(load: Workload) -> Workload:
    """Half a token and half a user more, so that no floor or ceiling is near."""
    halves = {
        name: getattr(load, name) + np.float32(0.5) for name in ("prompt_tokens", "context_tokens", "concurrency")
    }
    return replace(load, **halves)


@pytest.mark.parametrize("name", WHOLE)
@given(machines)
def test_whole_kernels(name: str, machine: tuple) -> None:
    with jax.enable_x64(True):
        check_against_differences(name, doubles((*machine[:-1], between_steps(machine[-1]))))


def zeros(pytree: Any, *names: str) -> Any:
    """The pytree with these fields zero."""
    return replace(pytree, **{name: np.float32(0) for name in names})


def edge(name: str, machine: tuple) -> tuple:
    """The machine at one of the edges of what can be described."""
    model, device, engine, layout, load = machine
    if name == "dense":
        names = ("n_moe_layers", "n_experts", "n_experts_per_token", "expert_params", "expert_bytes")
        return zeros(model, *names), device, engine, replace(layout, ep=np.float32(1)), load
    if name == "no host":
        bare = zeros(device, "pcie_bytes_per_s", "host_bandwidth_bytes_per_s", "host_flops_per_s", "host_memory_bytes")
        return model, bare, engine, zeros(layout, "host_layer_frac", "host_expert_frac"), load
    if name == "one domain":
        bare = zeros(device, "scale_out_bytes_per_s", "scale_out_latency_s")
        return model, replace(bare, domain_devices=np.float32(1024)), engine, layout, load
    if name == "no limits":
        unlimited = replace(model, topk_entries=np.full_like(model.topk_entries, np.inf))
        return unlimited, device, engine, layout, replace(load, kv_pool_tokens=np.float32(np.inf))
    assert name == "alone"
    ones = {f.name: np.float32(1) for f in fields(layout) if not f.name.endswith("_frac")}
    return model, device, engine, replace(layout, **ones), replace(load, concurrency=np.float32(1))


EDGES = ("dense", "no host", "one domain", "no limits", "alone")
unshrunk = settings(max_examples=15, phases=[Phase.generate])


def not_finite(name: str, arguments: tuple) -> set[str]:
    """Fields in which the gradient of a kernel is infinite or no number."""
    paths, _ = jax.tree_util.tree_flatten_with_path(differentiated(name)[1](*arguments))
    floats = [(path[-1].name, leaf) for path, leaf in paths if leaf.dtype == np.float64]
    return {field for field, leaf in floats if not np.all(np.isfinite(leaf))}


@pytest.mark.parametrize("where", EDGES)
@unshrunk
@given(machines)
def test_gradients_are_finite_at_edges(where: str, machine: tuple) -> None:
    with jax.enable_x64(True):
        for name in WHOLE:
            assert not_finite(name, doubles(edge(where, machine))) <= set(COUNTS), name


@pytest.mark.parametrize("where", ["one domain", "no limits"])
@unshrunk
@given(machines)
def test_gradients_in_counts_are_finite_at_edges(where: str, machine: tuple) -> None:
    with jax.enable_x64(True):
        assert not_finite("step_seconds", doubles(edge(where, machine))) == set()


@unshrunk
@given(machines)
def test_an_empty_step_and_an_empty_cache_have_finite_gradients(machine: tuple) -> None:
    with jax.enable_x64(True):
        model, device, engine, layout, load = doubles(machine)
        empty = zeros(load, "context_tokens", "prompt_tokens", "output_tokens")
        assert not_finite("step_seconds", (model, device, engine, layout, doubles(empty))) <= set(COUNTS)
