"""Times of the event simulator: requests per second of one scenario and of many, and the memory that they take.

Llama 2 7B on one A100, prompts of 512 tokens, outputs of 128, Poisson arrivals; every answer is asserted against the
reference scheduler of `tests/oracle`, or by what is conserved, before it is timed.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from kernels import serving
from kernels.step_table import Batch, StepTable, batch_seconds, chunk_seconds, step_table
from sim.point import split
from sim.request import build
from sim.serving.lanes import Lane, Outcome, Rules, lower, serve, shape
from tests.oracle.replica import Chunk, LinearCost, Policy, Requests
from tests.oracle.scheduler import simulate

PROMPT, OUTPUT = 512, 128
RULES = Rules(block_tokens=16, n_blocks=7000, max_batched_tokens=2048, max_sequences=256)
ONE, MANY = (1, 10_000), (1024, 500)  # scenarios, requests of each
N_CHECKED, N_REFERENCE = 200, 1000  # requests that the reference scheduler serves
TARGETS = {"one": 40_000, "many": 250_000}  # requests per second on two cores
# An engine of about the same step times whose cost is a formula, so that the reference is not timed in the tables.
LINEAR = LinearCost(8e-3, 2e-5, 3e-7, 1e-4, 5e-5, 1e-9, 1e-5)
MOST_BYTES = {"one": 1_800_000, "many": 215_000}  # of the state of a scenario; of many, one a core is held at a time
ROOT = Path(__file__).resolve().parents[1]
MILLION, MOST_GB = 1_000_000, 1.5
MILLION_CODE = f"""
import resource
from bench.test_serving_bench import lane
from sim.serving.lanes import serve
(outcome,) = serve([lane({MILLION}, 6.0, 0)])
assert outcome.complete and outcome.timeline["done"][-1] == {MILLION}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)
"""


@functools.cache
def table() -> StepTable:
    """Step times of the deployment, in float64."""
    request = build(
        "llama-2-7b", "a100-sxm-80", engine=None, weights="bf16", kv=None, concurrency=1, prompt=PROMPT, output=OUTPUT
    )
    engine, layout, _ = split(request.setup.engine, jax.tree.map(lambda a: a[0], request.points))
    with jax.enable_x64(True):
        made = step_table(request.setup.model, request.setup.device, engine, layout)
        return jax.tree.map(np.asarray, made)


def lane(n: int, requests_per_s: float, seed: int) -> Lane:
    """n requests with Poisson arrivals."""
    arrival = np.cumsum(np.random.default_rng(seed).exponential(1.0 / requests_per_s, n))
    return Lane(table(), RULES, arrival, np.full(n, PROMPT), np.full(n, OUTPUT))


@functools.cache
def lanes(name: str) -> tuple[Lane, ...]:
    """One scenario at 6 requests/s, or 1,024 at 1 to 12 with seeds of their own."""
    if name == "one":
        return (lane(ONE[1], 6.0, 0),)
    return tuple(lane(MANY[1], float(rate), seed) for seed, rate in enumerate(np.linspace(1.0, 12.0, MANY[0])))


def check(found: Outcome, asked: Lane) -> None:
    """All requests are done, in order, with all their tokens, and in no less time than alone."""
    n = len(asked.arrival_s)
    assert found.complete and found.itl_tokens.sum() == n * (OUTPUT - 1)
    assert np.all(np.diff(found.scheduled_s) >= 0) and np.all(found.first_token_s > asked.arrival_s)
    assert np.min(found.finish_s - found.first_token_s) >= (OUTPUT - 1) * table().step_s


def step_seconds(n_decode: int, sum_context: int, chunks: list[Chunk]) -> float:
    """Seconds of a step by the table, as the reference scheduler asks for them."""
    which, sums = np.zeros(1, np.int32), [np.zeros((1, 3)), np.zeros((1, 3)), np.zeros((1, 2))]
    real = lambda a: np.array([float(a)])  # noqa: E731
    for depth, tokens, _ in chunks:
        sums = [old + new for old, new in zip(sums, of_chunk(stacked(), which, real(depth), real(tokens)), strict=True)]
    logits = n_decode + sum(ends for *_, ends in chunks)
    counts = (n_decode, sum_context / max(n_decode, 1), sum(c[1] for c in chunks), len(chunks), logits)
    return float(of_batch(stacked(), which, Batch(*map(real, counts), *sums)).seconds[0])


of_chunk, of_batch = jax.jit(chunk_seconds), jax.jit(batch_seconds)


@functools.cache
def stacked() -> StepTable:
    """The table with an axis of tables."""
    return jax.tree.map(lambda a: np.asarray(a)[None], table())


def reference_policy() -> Policy:
    """RULES as the reference scheduler takes them."""
    return Policy(**{f.name: getattr(RULES, f.name) for f in fields(Policy)})


def check_reference() -> None:
    """The simulator is the reference scheduler with the same seconds of a step, at 6 requests/s and at overload."""
    for rate in (6.0, 40.0):
        asked = lane(N_CHECKED, rate, 1)
        (found,) = serve([asked])
        requests = Requests(asked.arrival_s, asked.prompt_tokens, asked.output_tokens)
        with jax.enable_x64(True):
            expected = simulate(requests, reference_policy(), step_seconds)
        assert found.n_steps == len(expected.steps)
        for name in ("scheduled_s", "first_token_s", "finish_s"):
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-9)


def arguments(name: str) -> tuple[Any, ...]:
    """What the kernel is called with for a scenario: it serves one at a time, and is given a fresh state each time."""
    one = lanes(name)[0]
    keep = np.ones(len(one.arrival_s), bool)
    n, ring, phases = shape(one, keep)
    given = lower([(one, keep)], n)
    return (*given, jax.block_until_ready(serving.start(*given[2:], ring, phases, 2 * n)), 2**31 - 1)


@pytest.fixture
def wide() -> Iterator[None]:
    """The kernel runs in float64."""
    with jax.enable_x64(True):
        yield


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("name", TARGETS)
def test_trace(benchmark: Any, name: str) -> None:
    """From Python to a jaxpr."""
    benchmark.pedantic(serving.advance.trace, arguments(name), setup=jax.clear_caches, rounds=3)


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("name", TARGETS)
def test_compile(benchmark: Any, name: str) -> None:
    """From a jaxpr to an executable: lowering to StableHLO, and XLA."""

    def fresh() -> tuple[tuple[Any], dict[str, Any]]:
        jax.clear_caches()
        return (serving.advance.trace(*arguments(name)),), {}

    benchmark.pedantic(lambda traced: traced.lower().compile(), setup=fresh, rounds=3)


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("name", TARGETS)
def test_first_run(benchmark: Any, name: str) -> None:
    """The first call of a compiled executable; its state is asserted to be no larger than stated."""

    def fresh() -> tuple[tuple[Any, ...], dict[str, Any]]:
        jax.clear_caches()
        given = arguments(name)
        return (serving.advance.lower(*given).compile(), given), {}

    run = lambda compiled, given: jax.block_until_ready(compiled(*given))  # noqa: E731
    state, _ = benchmark.pedantic(run, setup=fresh, rounds=3)
    assert int(state.lane.n_done[0]) == len(lanes(name)[0].arrival_s)
    size = sum(a.nbytes for a in jax.tree.leaves(state))
    benchmark.extra_info["bytes_per_scenario"] = size
    print(f"\n{name}: {size:,} bytes of state a scenario")
    assert size <= MOST_BYTES[name]


@pytest.mark.parametrize("name", TARGETS)
def test_serve(benchmark: Any, per_second: Callable[[int], None], name: str) -> None:
    """`sim.serving.lanes.serve`: numpy arrays in and out, all cores; requests per second, and its target."""
    check_reference()
    asked = lanes(name)
    for found, one in zip(serve(asked), asked, strict=True):
        check(found, one)
    benchmark.pedantic(serve, (asked,), rounds=7, warmup_rounds=1)
    n = sum(len(one.arrival_s) for one in asked)
    per_second(n)
    if benchmark.stats is not None and jax.default_backend() == "cpu":
        assert n / benchmark.stats.stats.min >= TARGETS[name]  # others on the machine only add time


def test_reference(benchmark: Any, per_second: Callable[[int], None]) -> None:
    """The reference scheduler of the tests, plain Python: the same traffic on an engine of about the same speed."""
    asked = lane(N_REFERENCE, 6.0, 0)
    requests = Requests(asked.arrival_s, asked.prompt_tokens, asked.output_tokens)
    found = benchmark.pedantic(simulate, (requests, reference_policy(), LINEAR), rounds=3)
    assert np.all(np.isfinite(found.finish_s))
    per_second(N_REFERENCE)


def test_million(benchmark: Any, per_second: Callable[[int], None]) -> None:
    """A million requests in a process of its own, imports and compilation included, and the most memory it held."""

    def run() -> float:
        command = (sys.executable, "-W", "ignore", "-c", MILLION_CODE)
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        return float(done.stdout)

    peak_gb = benchmark.pedantic(run, rounds=1)
    benchmark.extra_info["peak_gb"] = peak_gb
    print(f"\na million requests: at most {peak_gb:.2f} GB")
    assert peak_gb < MOST_GB
    per_second(MILLION)
