"""Steady states of a product: R deployments × L lengths × C concurrencies, each term on the axes that it depends on.

The formulas are those of `kernels.steady.steady`. What is linear in the load of a step (GEMMs, attention) becomes
coefficients of a deployment, or of a deployment and a length, by the same functions; what is left for the cells is
element by element. Each stage is a jitted function of its own: XLA would compute an intermediate of one stage anew in
each of its uses, which takes twenty times as long. Weights in host memory are not among it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from kernels.economics import n_devices, power_w
from kernels.experts import Routing, experts_of_step, routing
from kernels.loop import (
    Work,
    busy_ranks,
    closed_loop,
    full_tokens,
    kept_tokens,
    mean_context,
    mixing,
    prompt_chunks,
    running_sequences,
    utilization,
)
from kernels.memory import memory
from kernels.roofline import smooth_max
from kernels.steady import highest_peak, sequences_held
from kernels.step import (
    LaunchParts,
    LinearParts,
    attention_parts,
    communication_s,
    expert_parts,
    gemm_parts,
    launch_parts,
    launch_s,
    linear_s,
    micro_batches,
    scheduler_s,
)
from kernels.types import GEMM_GROUPS, HEAD, Device, Engine, Layout, Load, Memory, Model, Workload, pytree
from kernels.work import decode_load, prefill_load

ORDER = ("deployments", "lengths", "concurrency")
Kernels = tuple[Array, ...]


@pytree
class Unit:
    """What one unit of load costs on a rank: seconds of attention, indexer and recurrent state; their work in all."""

    memory_s: Kernels
    compute_s: Kernels
    bytes: Array
    flops: Array


@pytree
class Deployment:
    """Scalars and coefficients of a deployment, whatever it serves."""

    model: Model
    device: Device
    engine: Engine
    layout: Layout
    gemms: tuple[LinearParts, ...]  # by group
    gemm_bytes: Array
    expert: LinearParts
    routing: Routing
    launches: LaunchParts
    sequence: Unit  # of a sequence in prefill
    peak: Array


@pytree
class Served:
    """Of a deployment at given lengths."""

    decode: Unit  # of a decoding sequence, halfway through its output
    prompt: Unit  # of a prompt's tokens
    reads: Unit  # of a prompt that is read once
    held: Array  # sequences that the KV pool holds
    memory: Memory


@pytree
class Amounts:
    """One step: sequences that decode; prompts on each of so many ranks, from their first token."""

    n_decode: Array | float
    n_prompts: Array | float
    n_ranks: Array | float


@pytree
class Cells:
    """Figures of R × L × C cells; some arrays have an axis of length 1."""

    memory: Memory
    running_sequences: Array
    ttft_s: Array
    tpot_s: Array
    e2e_s: Array
    requests_per_s: Array
    mbu_frac: Array
    mfu_frac: Array
    power_w: Array
    n_devices: Array


def deployment(model: Model, device: Device, engine: Engine, layout: Layout) -> Deployment:
    """Coefficients of one deployment; unbatched."""
    of = (model, device, engine, layout)
    none = decode_load(model, jnp.zeros(()), jnp.zeros(()))
    gemm = gemm_parts(*of)
    scalars = (jax.tree.map(lambda a: a if jnp.ndim(a) == 0 else jnp.zeros(()), tree) for tree in of)
    return Deployment(
        *scalars,
        gemms=tuple(jax.tree.map(lambda a, i=i: a[i], gemm) for i in range(len(GEMM_GROUPS))),
        gemm_bytes=jnp.sum(gemm.bytes),
        expert=expert_parts(*of),
        routing=routing(model, engine, layout),
        launches=launch_parts(model, engine),
        sequence=unit(*of, replace(none, n_sequences=jnp.ones(()))),
        peak=highest_peak(model, device),
    )


def unit(model: Model, device: Device, engine: Engine, layout: Layout, load: Load) -> Unit:
    """Of a load that stands for one unit."""
    n_bytes, flops, memory_s, compute_s = zip(*attention_parts(model, device, engine, layout, load), strict=True)
    return Unit(memory_s, compute_s, sum(n_bytes), sum(flops))


def served(model: Model, device: Device, engine: Engine, layout: Layout, load: Workload) -> Served:
    """Coefficients of one deployment at one length; unbatched."""
    of, one, none = (model, device, engine, layout), jnp.ones(()), jnp.zeros(())
    whole = prefill_load(model, load.prompt_tokens, none, one)
    idle = decode_load(model, none, none)
    read = {name: getattr(whole, name) for name in ("prefill_local_entries", "prefill_global_entries")}
    unread = {name: getattr(idle, name) for name in read}
    mem = memory(*of, load)
    return Served(
        decode=unit(*of, decode_load(model, one, mean_context(load))),
        prompt=unit(*of, replace(whole, n_sequences=none, **unread)),
        reads=unit(*of, replace(idle, **read)),
        held=sequences_held(model, layout, mem, load, kept_tokens(engine, load)),
        memory=mem,
    )


@partial(jax.jit, static_argnames="order")
def coefficients(
    models: Model, devices: Device, engines: Engine, which: Array, layout: Layout, tuned: dict[str, Array],
    lengths: Workload, concurrency: Array, order: tuple[str, ...] = ORDER,
) -> tuple[Deployment, Served, Workload]:  # fmt: skip
    """All that the cells need, with an axis for each of `order`.

    which: (R, 3) indices into models, devices and engines; layout (R,); tuned: fields of Engine, (R,) each; lengths
    (L,) but for their concurrency; concurrency (C,).
    """
    chosen = [jax.tree.map(lambda a, i=i: a[which[:, i]], tree) for i, tree in enumerate((models, devices, engines))]
    rows = (*chosen[:2], replace(chosen[2], **tuned), layout)
    of_rows = jax.vmap(deployment)(*rows)
    of_lengths = jax.vmap(jax.vmap(served, (None, None, None, None, 0)), (0, 0, 0, 0, None))(*rows, lengths)
    place = partial(_place, order=order)
    load = replace(place(lengths, ORDER[1:2]), concurrency=place(concurrency, ORDER[2:]))
    return place(of_rows, ORDER[:1]), place(of_lengths, ORDER[:2]), load


def _place(tree, axes: tuple[str, ...], order: tuple[str, ...]):
    """Leaves with these axes, transposed and with axes of length 1 to all of `order`."""
    there = [name for name in order if name in axes]
    turn, missing = [axes.index(name) for name in there], [i for i, name in enumerate(order) if name not in axes]
    return jax.tree.map(lambda a: jnp.expand_dims(jnp.transpose(a, turn), missing), tree)


@jax.jit
def batch(of: Deployment, at: Served, load: Workload) -> tuple[Array, Array, Array, Array, Array]:
    """(running sequences, prefill tokens of a mixed step, share of mixed steps, prompts of a full step, sequences
    beside these).
    """
    engine, layout, prompt = of.engine, of.layout, load.prompt_tokens
    running = running_sequences(engine, layout, load, at.held)
    chunk, share = mixing(engine, layout, running, prompt, load.output_tokens)
    filled = full_tokens(engine, layout, load, running) / prompt
    return running, chunk, share, filled, 0.5 * engine.mixes_prefill * (running - 1.0)


@partial(jax.jit, static_argnames=("eager", "counted"))
def step(of: Deployment, at: Served, prompt: Array, amounts: Amounts, eager: bool, counted: bool = False) -> tuple[Array, Work]:
    """(seconds, work) of a step. eager: it has prompts; its work is then that of prefill, else that of decode."""
    engine, layout, ranks = of.engine, of.layout, amounts.n_ranks
    n_prompts = amounts.n_prompts * ranks
    in_prefill = jnp.maximum(amounts.n_prompts, 1.0) * ranks if eager else 0.0
    n_sequences = amounts.n_decode + in_prefill
    of_stage = 1.0 / micro_batches(engine, layout, n_sequences)
    of_rank = of_stage / jnp.clip(n_sequences * of_stage, 1.0, layout.dp)
    tokens = amounts.n_decode + n_prompts * prompt
    rows, logits = tokens * of_rank, (amounts.n_decode + n_prompts) * of_rank
    on_rank, expert_rows = experts_of_step(of.routing, tokens * of_stage)
    gemms = [(part, 1.0, logits if i == HEAD else rows) for i, part in enumerate(of.gemms)]
    weights = (*gemms, (of.expert, on_rank, expert_rows))
    busy = sum(smooth_max(*linear_s(*one), engine.sharpness) for one in weights)
    loads = [(amounts.n_decode * of_rank, at.decode)]
    if eager:  # the cache is read once a chunk, see kernels.work.prefill_load
        reads = jnp.maximum(amounts.n_prompts, 0.5 * (1.0 + amounts.n_prompts)) * ranks
        loads += [(n_prompts * of_rank, at.prompt), (reads * of_rank, at.reads), (in_prefill * of_rank, of.sequence)]
    cached_s, cached_bytes, cached_flops = cached(engine, loads)
    busy = busy + cached_s + communication_s(of.model, of.device, engine, layout, rows)[0]
    apart = True if eager else amounts.n_decode * of_rank * layout.pp > engine.graph_tokens
    own_flops = sum(count * part.flops_per_row for part, _, count in gemms) + cached_flops
    routed_flops = expert_rows * of.expert.flops_per_row
    zero = jnp.zeros_like(own_flops)
    work = Work(zero, zero, routed_flops + own_flops / layout.dp)
    if not eager:
        work = Work(of.gemm_bytes + on_rank * of.expert.bytes + cached_bytes, own_flops + routed_flops, zero)
    t = busy + launch_s(of.launches, apart, busy) + scheduler_s(engine, layout, n_sequences)
    return (t, work) if counted else (t, None)


def cached(engine: Engine, loads: list[tuple[Array, Unit]]) -> tuple[Array, Array, Array]:
    """(seconds, bytes, FLOPs) of attention, indexer and recurrent state on a rank."""
    total = lambda parts: sum(n * part for (n, _), part in zip(loads, parts, strict=True))  # noqa: E731
    seconds = 0.0
    for i in range(len(loads[0][1].memory_s)):
        memory_s, compute_s = total(one.memory_s[i] for _, one in loads), total(one.compute_s[i] for _, one in loads)
        seconds = seconds + smooth_max(memory_s, compute_s, engine.sharpness)
    return seconds, total(one.bytes for _, one in loads), total(one.flops for _, one in loads)


@jax.jit
def finish(
    of: Deployment, at: Served, load: Workload, running: Array, chunk: Array, share: Array,
    seconds: dict[str, Array], decode: Work, prefill: Work,
) -> Cells:  # fmt: skip
    """The loop of these steps."""
    device, engine, layout = of.device, of.engine, of.layout
    loop = closed_loop(engine, layout, load, running, chunk, share, **{f"{n}_s": s for n, s in seconds.items()})
    work = Work(decode.decode_bytes, decode.decode_flops, prefill.prefill_flops)
    used = utilization(device, engine, layout, load, running, work, of.peak, loop.rate_per_s)
    mbu, mfu = (frac * loop.busy_frac for frac in used)
    count = n_devices(layout)
    return Cells(
        memory=at.memory,
        running_sequences=running * layout.replicas * loop.busy_frac,
        ttft_s=loop.ttft_s,
        tpot_s=loop.tpot_s,
        e2e_s=loop.e2e_s,
        requests_per_s=loop.rate_per_s * layout.replicas * loop.busy_frac,
        mbu_frac=mbu,
        mfu_frac=mfu,
        power_w=power_w(device, engine, mbu, mfu) * count,
        n_devices=count,
    )


def grid(of: Deployment, at: Served, load: Workload, ranked: bool) -> Cells:
    """All cells of `coefficients`. ranked: some layout has attention-DP; elsewhere a wave is a prompt alone."""
    running, chunk, share, filled, beside = batch(of, at, load)
    prompt, one = load.prompt_tokens, 1.0 / prompt_chunks(of.engine, load.prompt_tokens)
    decode_s, decode = step(of, at, prompt, Amounts(running, 0.0, 1.0), eager=False, counted=True)
    alone_s, prefill = step(of, at, prompt, Amounts(0.0, one, 1.0), eager=True, counted=True)
    seconds = {"decode": decode_s, "alone": alone_s, "wave": alone_s}
    if ranked:
        seconds["wave"], _ = step(of, at, prompt, Amounts(0.0, one, busy_ranks(of.layout, running)), eager=True)
    seconds["mixed"], _ = step(of, at, prompt, Amounts(running, chunk / prompt, 1.0), eager=True)
    seconds["filled"], _ = step(of, at, prompt, Amounts(beside, filled, 1.0), eager=True)
    return finish(of, at, load, running, chunk, share, seconds, decode, prefill)
