"""Evaluates many configurations of one model, machine and engine in one compiled call."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernels.economics import economics, n_devices
from kernels.memory import longest_context, memory
from kernels.steady import steady
from kernels.step import bound
from kernels.types import Device, Economics, Engine, Layout, Memory, Model, Steady, Workload, pytree
from sim import errors

T = TypeVar("T")


@dataclass(frozen=True)
class Setup:
    """What all configurations of a call share."""

    model: Model
    device: Device
    engine: Engine


@pytree
class Point:
    """One configuration; every field a scalar, or an array of one common length under `evaluate`."""

    tp: Array
    pp: Array
    ep: Array
    dp: Array
    replicas: Array
    host_layer_frac: Array
    host_expert_frac: Array
    concurrency: Array
    prompt_tokens: Array
    output_tokens: Array
    context_tokens: Array
    kv_pool_tokens: Array
    n_requests: Array
    length_spread: Array
    max_batched_tokens: Array
    max_sequences: Array
    memory_frac: Array
    admission_steps: Array
    mixes_prefill: Array
    usd_per_device_s: Array
    usd_per_joule: Array


@pytree
class Answer:
    """Everything a verb reports of a configuration."""

    memory: Memory
    steady: Steady
    economics: Economics
    n_devices: Array
    max_context_tokens: Array
    why: Array  # bit-set of sim.errors
    bound: Array  # (2,) operation index, and 1 where memory binds it


def split(engine: Engine, point: Point) -> tuple[Engine, Layout, Workload]:
    """The kernels' arguments of one configuration."""
    tuned = replace(
        engine,
        max_batched_tokens=point.max_batched_tokens,
        max_sequences=point.max_sequences,
        memory_frac=point.memory_frac,
        admission_steps=point.admission_steps,
        mixes_prefill=point.mixes_prefill,
    )
    layout = Layout(**{f.name: getattr(point, f.name) for f in fields(Layout)})
    return tuned, layout, Workload(**{f.name: getattr(point, f.name) for f in fields(Workload)})


def answer(model: Model, device: Device, engine: Engine, point: Point) -> Answer:
    """One configuration through every kernel; unbatched."""
    tuned, layout, load = split(engine, point)
    mem = memory(model, device, tuned, layout, load)
    state = steady(model, device, tuned, layout, load, mem)
    money = economics(device, tuned, layout, load, state, point.usd_per_device_s, point.usd_per_joule)
    per_rank = jnp.ceil(jnp.minimum(load.concurrency / layout.replicas, tuned.max_sequences * layout.dp) / layout.dp)
    longest = longest_context(model, tuned, layout, mem, per_rank)
    return Answer(
        memory=mem,
        steady=state,
        economics=money,
        n_devices=n_devices(layout),
        max_context_tokens=jnp.minimum(longest, load.kv_pool_tokens / per_rank),
        why=_why(model, mem, device, load),
        bound=bound(state.decode),
    )


def _why(model: Model, mem: Memory, device: Device, load: Workload) -> Array:
    no_weights = (mem.pool_bytes <= 0) | (mem.host_bytes > device.host_memory_bytes)
    no_cache = ~no_weights & (mem.max_sequences < 1)
    too_long = load.context_tokens > model.max_context_tokens
    bits = (
        no_weights * errors.WEIGHTS_DO_NOT_FIT + no_cache * errors.KV_DOES_NOT_FIT + too_long * errors.CONTEXT_TOO_LONG
    )
    return bits.astype(jnp.int32)


def _answers(model: Model, device: Device, engine: Engine, points: Point) -> Answer:
    return jax.vmap(answer, in_axes=(None, None, None, 0))(model, device, engine, points)


_evaluate = jax.jit(_answers)
_evaluate_few = jax.jit(_answers, compiler_options={"xla_backend_optimization_level": "0"})  # compiles in half the time


SMALL_BATCH = 128  # one compilation serves every shorter array


def evaluate(setup: Setup, points: Point) -> Answer:
    """Answers of all points as numpy arrays. Lengths are padded to a few sizes, so that few are compiled."""
    n = len(points.tp)
    padded = SMALL_BATCH if n <= SMALL_BATCH else 1 << (n - 1).bit_length()
    grown = jax.tree.map(lambda a: np.concatenate([a, np.repeat(a[-1:], padded - n)]), points)
    run = _evaluate_few if padded == SMALL_BATCH else _evaluate
    out = run(setup.model, setup.device, setup.engine, grown)
    return jax.tree.map(lambda a: np.asarray(a)[:n], out)


def stack(trees: list[T]) -> T:
    """Pytrees of one structure as one, with a leading axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


@pytree
class Score:
    """What ranks a configuration."""

    why: Array
    ttft_s: Array
    tpot_s: Array
    output_tokens_per_s: Array
    usd_per_hour: Array
    usd_per_output_token: Array
    power_w: Array
    n_devices: Array


def score(model: Model, device: Device, engine: Engine, point: Point) -> Score:
    """The figures of `answer` by which deployments are ranked; unbatched."""
    full = answer(model, device, engine, point)
    return Score(
        why=full.why,
        ttft_s=full.steady.ttft_s,
        tpot_s=full.steady.tpot_s,
        output_tokens_per_s=full.steady.requests_per_s * point.output_tokens,
        usd_per_hour=full.economics.usd_per_hour,
        usd_per_output_token=full.economics.usd_per_output_token,
        power_w=full.economics.power_w,
        n_devices=full.n_devices,
    )


@jax.jit
def _score_block(models: Model, devices: Device, engines: Engine, which: Array, points: Point) -> Score:
    """which: (N, 3) indices into the stacked models, devices and engines."""
    chosen = [jax.tree.map(lambda a, i=i: a[which[:, i]], tree) for i, tree in enumerate((models, devices, engines))]
    return jax.vmap(score)(*chosen, points)


SCORE_BLOCK = 16384


def score_many(
    models: list[Model], devices: list[Device], engines: list[Engine], which: np.ndarray, points: Point
) -> Score:
    """Scores of N configurations over lists of models, devices and engines, in blocks of one compiled size."""
    stacks = [stack(_padded(trees)) for trees in (models, devices, engines)]
    blocks = []
    for start in range(0, len(which), SCORE_BLOCK):
        part = slice(start, start + SCORE_BLOCK)
        size = min(SCORE_BLOCK, 1 << (len(which) - 1).bit_length())
        grow = lambda a, size=size, part=part: np.resize(a[part], (size, *a.shape[1:]))  # noqa: E731
        out = _score_block(*stacks, grow(which), jax.tree.map(grow, points))
        kept = len(which[part])
        blocks.append(jax.tree.map(lambda a, kept=kept: np.asarray(a)[:kept], out))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *blocks)


def _padded(trees: list) -> list:
    """The list grown to a power of two by repeating its last, so that few lengths are compiled."""
    return trees + [trees[-1]] * ((1 << (len(trees) - 1).bit_length()) - len(trees))
