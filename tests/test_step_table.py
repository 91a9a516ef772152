"""Step tables against the step-time model that they tabulate, over deployments of the catalogue."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.step import step_time
from kernels.step_table import (
    N_KNOTS,
    A,
    Batch,
    Step,
    StepTable,
    batch_seconds,
    chunk_seconds,
    knots,
    position,
    step_table,
)
from kernels.types import Device, Engine, Layout, Load, Model
from kernels.work import combine, decode_load, prefill_load
from sim.point import split
from sim.request import build

DEPLOYMENTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dense": ("llama-3.1-8b", "h100", {}),
    "TP and attention-DP": ("llama-3.1-8b", "8x-h100", {"tp": 4, "dp": 2}),
    "MoE": ("mixtral-8x7b", "2x-h100", {"engine": "trtllm"}),
    "MoE with windows": ("gpt-oss-120b", "h100", {}),
    "windows": ("gemma-3-27b", "h100", {}),
    "MLA": ("deepseek-v3", "8x-h200", {}),
    "sparse attention": ("deepseek-v3.2", "8x-h200", {}),
    "MLA with EP and attention-DP": ("deepseek-v3", "8x-h200", {"engine": "sglang", "tp": 1, "dp": 8, "ep": 8}),
    "EP and attention-DP": ("qwen3-235b-a22b", "8x-h100", {"engine": "sglang", "tp": 1, "dp": 8, "ep": 8}),
    "PP": ("llama-3.3-70b", "4x-h100", {"tp": 1, "pp": 4}),
    "TP and PP": ("llama-3.3-70b", "8x-h100", {"tp": 4, "pp": 2}),
    "hybrid": ("qwen3-next-80b-a3b", "8x-h100", {}),
    "llama.cpp": ("llama-3.1-8b", "rtx-4090", {"engine": "llamacpp", "weights": "q4_k_m"}),
    "experts on the host": (
        "qwen3-30b-a3b", "rtx-4090", {"engine": "llamacpp", "weights": "q4_k_m", "cpu_moe_frac": 0.5},
    ),
}  # fmt: skip
RTOL = 2e-4  # of straight lines between the knots
EXACT = 1e-9
N_BATCHES, MOST_CHUNKS = 24, 4
Machine = tuple[Model, Device, Engine, Layout]
Chunks = list[tuple[float, float]]  # (cached tokens behind it, its own) of each


@pytest.fixture(autouse=True)
def wide() -> Any:
    """Float64, as the simulator has it."""
    with jax.enable_x64(True):
        yield


@functools.cache
def machine(name: str) -> Machine:
    """A deployment in float64."""
    model, hardware, changes = DEPLOYMENTS[name]
    asked = {"engine": None, "weights": "native", "kv": None, "concurrency": 1, "prompt": 512, "output": 128} | changes
    request = build(model, hardware, **asked)
    engine, layout, _ = split(request.setup.engine, jax.tree.map(lambda a: a[0], request.points))
    found = jax.tree.map(np.asarray, (request.setup.model, request.setup.device, engine, layout))
    return jax.tree.map(lambda a: a.astype(float) if np.issubdtype(a.dtype, np.floating) else a, found)


@functools.cache
def stacked(name: str) -> StepTable:
    """Its table, with an axis of tables."""
    return jax.tree.map(lambda a: np.asarray(a)[None], step_table(*machine(name)))


@jax.jit
def direct(machine: Machine, decode: jax.Array, chunks: jax.Array) -> jax.Array:
    """Seconds of a step by the model. decode: (sequences, context); chunks: (C, 2), those of no tokens are none."""
    model, device, engine, layout = machine
    loads: list[Load] = [decode_load(model, decode[0], decode[1])]
    for depth, n in chunks:
        there = jnp.where(n > 0, 1.0, 0.0)
        loads.append(jax.tree.map(lambda a, there=there: there * a, prefill_load(model, n, depth, there)))
    return step_time(model, device, engine, layout, functools.reduce(combine, loads)).total_s


@jax.jit
def tabulated(table: StepTable, decode: jax.Array, chunks: jax.Array) -> Step:
    """The same step by the table, as the simulator asks for it."""
    which, real = jnp.zeros(1, jnp.int32), lambda a: jnp.reshape(a, 1).astype(float)
    sums = [jnp.zeros((1, A)), jnp.zeros((1, A)), jnp.zeros((1, 2))]
    for depth, n in chunks:
        parts = chunk_seconds(table, which, real(depth), real(n))
        sums = [a + jnp.where(n > 0, b, 0.0) for a, b in zip(sums, parts, strict=True)]
    n_chunks = jnp.sum(chunks[:, 1] > 0)
    counts = [decode[0], decode[1], jnp.sum(chunks[:, 1]), n_chunks, decode[0] + n_chunks]
    return batch_seconds(table, which, Batch(*map(real, counts), *sums))


def padded(chunks: Chunks) -> np.ndarray:
    """(MOST_CHUNKS, 2)"""
    return np.array(chunks + [(0.0, 0.0)] * (MOST_CHUNKS - len(chunks)))


def both(name: str, n_decode: float, context: float, chunks: Chunks) -> tuple[float, float]:
    """Seconds of a step by the table, and by the model."""
    decode, rows = np.array([n_decode, context]), padded(chunks)
    found = float(tabulated(stacked(name), decode, rows).seconds[0])
    return found, float(direct(machine(name), decode, rows))


def random_batch(rng: np.random.Generator) -> tuple[float, float, Chunks]:
    """Sequences that decode, if any, with their mean context, and up to MOST_CHUNKS chunks; not nothing."""
    n_decode = int(rng.choice([0, 1, 2, 5, 8, 16, 33, 100, 256]))
    n_chunks = int(rng.integers(0 if n_decode else 1, MOST_CHUNKS + 1))
    chunks = [(float(rng.choice([0, rng.integers(1, 6000)])), float(rng.integers(1, 2000))) for _ in range(n_chunks)]
    return float(n_decode), float(rng.uniform(1.0, 9000.0)) if n_decode else 0.0, chunks


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_table_has_the_seconds_of_the_model(name: str) -> None:
    """Decode alone, chunks alone, and both."""
    rng = np.random.default_rng(len(name))
    for _ in range(N_BATCHES):
        batch = random_batch(rng)
        found, expected = both(name, *batch)
        assert found == pytest.approx(expected, rel=RTOL), batch


@pytest.mark.parametrize(
    "name",
    ["dense", "MoE with windows", "windows", "MLA", "sparse attention", "hybrid", "llama.cpp", "experts on the host"],
)
def test_a_table_is_exact_at_its_knots(name: str) -> None:
    """Decode of as many sequences, and as much context, as a knot has."""
    x = knots()
    for n_decode, context in [(1, x[0]), (1, x[1]), (3, x[40]), (20, x[100]), (x[70], x[150]), (x[90], x[170])]:
        found, expected = both(name, float(n_decode), float(context), [])
        assert found == pytest.approx(expected, rel=EXACT), (n_decode, context)


def test_positions_are_exact() -> None:
    """At each knot its own index and no share; between two, the index of the lower and a straight share of the gap."""
    x = knots()
    assert len(x) == N_KNOTS and np.all(np.diff(x) > 0) and x[-1] == 2.0**24
    assert np.array_equal(x[:33], np.arange(33))
    index, share = map(np.asarray, position(jnp.asarray(x[:-1])))
    np.testing.assert_array_equal(index, np.arange(N_KNOTS - 1))
    np.testing.assert_array_equal(share, 0.0)
    for part in (0.25, 0.5, 0.75):
        index, share = map(np.asarray, position(jnp.asarray(x[:-1] + part * np.diff(x))))
        np.testing.assert_array_equal(index, np.arange(N_KNOTS - 1))
        np.testing.assert_array_equal(share, part)


@pytest.mark.parametrize("n_decode", [1, 7, 64])
@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_stride_is_the_sum_of_its_steps(name: str, n_decode: int) -> None:
    """Σ over i < k of (first + i·growth), k at most `straight`, are the seconds and the work of k single steps."""
    for context in (200.0, 300.5, 1000.0, 4100.25):
        steps = lambda i, context=context: tabulated(  # noqa: E731
            stacked(name), np.array([float(n_decode), context + i]), padded([])
        )
        first = steps(0)
        k = int(first.straight[0])
        assert k >= 1
        at_once = k * first.seconds + 0.5 * k * (k - 1) * first.growth_s
        work = k * first.work + 0.5 * k * (k - 1) * first.work_growth
        np.testing.assert_allclose(at_once, sum(steps(i).seconds for i in range(k)), rtol=EXACT)
        np.testing.assert_allclose(work, sum(steps(i).work for i in range(k)), rtol=EXACT)


def test_a_stride_ends_at_the_next_knot() -> None:
    """From 1,000 tokens on, 24 steps: the line from 992 bends at 1,024. Prompts, and launches one by one, stop it."""
    found = tabulated(stacked("dense"), np.array([1.0, 1000.0]), padded([]))
    assert float(found.straight[0]) == 1.0 + 24.0
    mixed = tabulated(stacked("dense"), np.array([1.0, 1000.0]), padded([(0.0, 10.0)]))
    assert float(mixed.straight[0]) == 1.0
    eager = replace(stacked("dense"), graph_tokens=np.zeros(1))
    assert float(tabulated(eager, np.array([1.0, 1000.0]), padded([])).straight[0]) == 1.0
