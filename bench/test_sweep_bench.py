"""Times of sweeps: memory, TTFT, TPOT, cost and energy of each cell, judged by reasons, best of groups, top and front.

Beside them `sim.point.score`, mapped over the same cells, which computes all terms for each cell. Answers are asserted
against `sim.estimate` before they are timed. Rates with a price axis count its cells too, which share a steady state;
all rates count the cells of deployments that cannot hold their weights, which are only counted.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from sim.point import Point, score_many
from sim.sweeps.blocks import Hint, Sweeper, hint_of
from sim.sweeps.file import load_sweep
from sim.sweeps.parts import Part
from sim.sweeps.plan import plan
from sim.sweeps.run import in_process, run
from sim.sweeps.spec import Spec
from sim.verbs.sweep import AT_ONCE
from tests import sweep_cells

BASE = Spec(
    name="bench", model=("llama-3.1-8b", "llama-3.1-70b", "qwen3-32b", "gpt-oss-120b", "deepseek-v3"),
    hardware=("h100-sxm", "h200", "b200", "mi300x"), gpus=(8, 16), tp=(1, 2, 4, 8), max_num_seqs=(64, 256, 1024),
    prompt_tokens=(128, 512, 2048, 8192), output_tokens=(64, 256, 1024, 4096), concurrency=tuple(range(1, 4097, 64)),
    limits={"tpot_s": 0.1, "ttft_s": 30.0}, minimize=("usd_per_mtok", "tpot_s", "ttft_s", "joules_per_token"),
    by=("model", "hardware"),
)  # fmt: skip
LARGE = {
    "name": "large",
    "axes": {
        "model": "all",
        "hardware": ["h100", "h200", "b200", "a100-80gb", "rtx-5090", "rtx-4090", "mi300x", "m3-ultra-512gb"],
        "weights": ["native", "fp8", "int4_g128"],
        "gpus": [1, 2, 4, 8],
        "prompt_tokens": {"from": 128, "to": 32768, "n": 17, "scale": "log"},
        "output_tokens": [64, 128, 256, 512, 1024, 2048],
        "concurrency": {"from": 1, "to": 4096, "n": 80, "scale": "log"},
    },
    "limits": {"tpot_s": 0.05, "ttft_s": 2.0},
    "answers": {"minimize": ["usd_per_mtok", "tpot_s", "ttft_s", "joules_per_token"], "by": ["model"]},
}
PRICES = {"no prices": (1.0,), "4 prices": (0.5, 1.0, 1.5, 2.0), "16 prices": tuple(np.linspace(0.5, 2.0, 16).tolist())}
GROWN = {
    "rows": {"max_num_batched_tokens": (1024, 2048, 4096, 8192)},
    "lengths": {"prompt_tokens": tuple(range(100, 1700, 100))},
    "concurrency": {"concurrency": tuple(range(1, 4097, 16))},
    "prices": {"usd_factor": (0.5, 1.0, 1.5, 2.0)},
}
N_POINTS, N_CHECKED = 65_536, 20
MOST_START_S = 5.0
ROOT = Path(__file__).resolve().parents[1]
START_CODE = """
from bench.test_sweep_bench import BASE
from sim.sweeps.blocks import Sweeper
from sim.sweeps.compiled import keep_compiled
from sim.sweeps.plan import plan
keep_compiled()
assert Sweeper(plan(BASE)).evaluate(0).n_cells
"""


@functools.cache
def large(prices: str) -> Sweeper:
    """Of LARGE, compiled."""
    made = Sweeper(plan(load_sweep({**LARGE, "axes": LARGE["axes"] | {"usd_factor": list(PRICES[prices])}})))
    made.evaluate(0)
    return made


@functools.cache
def sweeper(**changes: tuple) -> Sweeper:
    """Of the sweep with other axes, compiled."""
    made = Sweeper(plan(replace(BASE, **changes)))
    made.evaluate(0)
    return made


def swept(made: Sweeper) -> Part:
    """All blocks, as a sweep without a folder takes them."""
    return run(made.plan, in_process(lambda i, hint: (made.evaluate(i, hint), None), AT_ONCE))


def check(made: Sweeper, part: Part) -> None:
    """The best by cost and by TPOT are those of their own estimates; all cells are counted."""
    found = made.plan
    assert part.n_cells == found.n_cells and len(part.front) and len(part.top) == found.spec.top
    for d, name in ((0, "usd_per_mtok"), (1, "tpot_s")):
        for value, i in list(zip(part.best[d], part.best_index[d], strict=True))[:N_CHECKED]:
            at = np.unravel_index(max(i, 0), sweep_cells.shape_of(found))
            if i >= 0 and found.prices[at[3], 1] == 1.0:
                alone = sweep_cells.alone(found, int(at[0]))
                np.testing.assert_allclose(value, alone[name][at[1], at[2]], rtol=2e-6)


@pytest.mark.parametrize("name", PRICES)
def test_sweep(benchmark: Any, per_second: Callable[[int], None], name: str) -> None:
    """Cells per second of the whole sweep, and per second of the processor; whether blocks take the same time."""
    made = large(name)
    check(made, swept(made))
    cpu = time.process_time()
    benchmark.pedantic(swept, (made,), rounds=3)
    cpu = (time.process_time() - cpu) / 3
    hint, seconds = hint_of(swept(made), made.plan.spec.top), []
    for i in range(0, len(made.plan.blocks), 8):
        start = time.perf_counter()
        made.evaluate(i, hint)
        seconds.append(time.perf_counter() - start)
    n, spread = made.plan.n_cells, np.quantile(seconds, [0.1, 0.5, 0.9]) * 1e3
    benchmark.extra_info.update(cells_per_cpu_s=n / cpu, block_ms=spread.tolist())
    print(f"\n{name}: {n:,} cells, {n / cpu:,.0f} per CPU-second; blocks of {spread.round(1)} ms (10, 50, 90 %)")
    per_second(n)


def points() -> tuple[Any, ...]:
    """Some rows of the sweep, cell by cell, as `score_many` takes them."""
    found = sweeper(usd_factor=(1.0,)).plan
    each = len(found.lengths) * found.n_concurrency
    row, length, level, _ = np.unravel_index(np.arange(N_POINTS // each * each), sweep_cells.shape_of(found))
    names = ("prompt_tokens", "output_tokens", "context_tokens")
    given = {name: values[row] for name, values in found.rows.numbers.items() if name != "purchase_usd"}
    given |= {name: found.lengths[length, i] for i, name in enumerate(names)}
    given["concurrency"] = np.asarray(found.spec.concurrency)[level]
    open_ones = {"host_layer_frac": 0, "host_expert_frac": 0, "kv_pool_tokens": np.inf, "n_requests": np.inf,
                 "length_spread": 0}  # fmt: skip
    given |= {name: np.full(len(row), value) for name, value in open_ones.items()}
    engines = found.rows.engines
    given |= {
        n: np.asarray(getattr(engines, n))[found.rows.which[row, 2]] for n in ("admission_steps", "mixes_prefill")
    }
    trees = [[jax.tree.map(lambda a, i=i: a[i], tree) for i in range(len(jax.tree.leaves(tree)[0]))]
             for tree in (found.rows.models, found.rows.devices, engines)]  # fmt: skip
    return (*trees, found.rows.which[row], Point(**{n: np.asarray(v, np.float32) for n, v in given.items()}))


def test_points(benchmark: Any, per_second: Callable[[int], None]) -> None:
    """The same model of the same cells, mapped point by point."""
    given, found = points(), sweeper(usd_factor=(1.0,)).plan
    scores = score_many(*given)
    n = len(given[3])
    n_rows = n // (len(found.lengths) * found.n_concurrency)
    alone = [sweep_cells.alone(found, row) for row in range(n_rows)]
    fits = np.stack([one["fits"] for one in alone]).ravel()
    np.testing.assert_allclose(scores.tpot_s[fits], np.stack([a["tpot_s"] for a in alone]).ravel()[fits], rtol=2e-6)
    cpu = time.process_time()
    benchmark.pedantic(score_many, given, rounds=3)
    cpu = (time.process_time() - cpu) / 3
    benchmark.extra_info["cells_per_cpu_s"] = n / cpu
    print(f"\npoints: {n / cpu:,.0f} per CPU-second")
    per_second(n)


def roofline(found: Any, rows: slice, least: np.ndarray) -> np.ndarray:
    """The least of each objective, of some rows and those before; a step is max(bytes / bandwidth, FLOPs / peak)."""
    at, one = found.rows.which[rows], np.newaxis
    model, device, number = found.rows.models, found.rows.devices, found.rows.numbers
    tp, replicas = (number[name][rows, one, one] for name in ("tp", "replicas"))
    weights = model.gemm_bytes.sum(axis=1)[at[:, 0], one, one] / tp
    params = model.gemm_params.sum(axis=1)[at[:, 0], one, one] / tp
    entry = (model.attn_layers * model.entry_bytes).sum(axis=1)[at[:, 0], one, one] / tp
    bandwidth = device.bandwidth_bytes_per_s[at[:, 1], one, one]
    peak = device.peak_flops_per_s[at[:, 1], 0, one, one]
    room = device.memory_bytes[at[:, 1], one, one] - weights
    prompt, output, context = np.float32(found.lengths.T)[:, one, :, one]
    users = np.float32(found.spec.concurrency)[one, one] / replicas
    batch = np.minimum(users, np.maximum(room / (entry * context), 1e-9))
    step = np.maximum((weights + batch * entry * (prompt + output / 2)) / bandwidth, 2 * params * batch / peak)
    ttft = np.maximum(2 * params * prompt, 0) / peak + step
    rate = batch / (step * output + ttft) * replicas
    usd = number["usd_per_device_s"][rows, one, one] * tp * replicas / (rate * output) * 1e6
    joules = device.tdp_w[at[:, 1], one, one] * tp * replicas / (rate * output)
    kept = (batch >= 1) & (step <= found.spec.limits["tpot_s"]) & (ttft <= found.spec.limits["ttft_s"])
    both = [np.nanmin(np.where(kept, value, np.inf)) for value in (usd, step, ttft, joules)]
    return np.minimum(least, both)


def test_roofline_of_numpy(benchmark: Any, per_second: Callable[[int], None]) -> None:
    """For comparison, on the same axes with the same limits: a roofline in place of the model, and least of each."""
    found = large("no prices").plan

    def blocks() -> np.ndarray:
        least = np.full(4, np.inf)
        for first in range(0, found.n_rows, 16):
            with np.errstate(divide="ignore", invalid="ignore"):
                least = roofline(found, slice(first, first + 16), least)
        return least

    cpu = time.process_time()
    assert np.all(np.isfinite(benchmark.pedantic(blocks, rounds=3)))
    cpu = (time.process_time() - cpu) / 3
    print(f"\nroofline of NumPy: {found.n_cells / cpu:,.0f} per CPU-second")
    per_second(found.n_cells)


@pytest.mark.parametrize("axis", GROWN)
def test_growth(benchmark: Any, per_second: Callable[[int], None], axis: str) -> None:
    """An axis four times as long."""
    made = sweeper(**GROWN[axis])
    assert made.plan.n_cells == 4 * sweeper(usd_factor=(1.0,)).plan.n_cells
    benchmark.pedantic(swept, (made,), rounds=3, warmup_rounds=1)
    per_second(made.plan.n_cells)


def test_compile(benchmark: Any) -> None:
    """From a plan to the first block's part, nothing compiled before."""
    found = plan(BASE)
    first: Callable[[], Part] = lambda: Sweeper(found).evaluate(0, Hint(np.inf, np.full((16, 4), np.inf)))  # noqa: E731
    assert benchmark.pedantic(first, setup=jax.clear_caches, rounds=2).n_cells


def test_start(benchmark: Any) -> None:
    """A process of its own up to its first block, with the compilation cache of an earlier one."""
    start = lambda: subprocess.run((sys.executable, "-c", START_CODE), check=True, cwd=ROOT)  # noqa: E731
    benchmark.pedantic(start, rounds=3, warmup_rounds=1)
    if benchmark.stats is not None:
        assert benchmark.stats.stats.min < MOST_START_S
