"""Steady states of a product: R deployments × L lengths × C concurrencies, each term on the axes that it depends on.

The formulas are those of `kernels.steady.steady`. What is linear in a step's load (attention, GEMMs) becomes
coefficients of a deployment, or of a deployment and a length, by the same functions; what is left for the cells is
element by element. Weights in host memory are not among it.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import Array

from kernels.economics import n_devices, power_w
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
    experts_of_step,
    gemm_parts,
    launch_parts,
    launch_s,
    micro_batches,
)
from kernels.types import GEMM_GROUPS, HEAD, Device, Engine, Layout, Load, Memory, Model, Workload, pytree
from kernels.work import decode_load, prefill_load

BYTES, FLOPS, MEMORY_S, COMPUTE_S = range(4)  # of attention_parts
N_CACHED = 3  # attention, indexer, recurrent state


@pytree
class Parts:
    """Of a deployment, whatever it serves. U = (4, N_CACHED): bytes, FLOPs, memory and compute seconds."""

    gemm: LinearParts  # (G,)
    expert: LinearParts
    launches: LaunchParts
    sequence: Array  # (U) of a sequence in prefill
    peak: Array


@pytree
class Lengths:
    """Of a deployment at given lengths."""

    decode: Array  # (U) of a decoding sequence, halfway through its output
    prompt: Array  # (U) of a prompt's tokens
    reads: Array  # (U) of a prompt that is read once
    held: Array  # sequences that the KV pool holds
    memory: Memory


@pytree
class Amounts:
    """One step: sequences that decode; prompts, sequences in prefill, times that a prompt is read."""

    n_decode: Array | float
    n_prompts: Array | float
    n_behind: Array | float
    n_reads: Array | float


@pytree
class Cells:
    """(R, L, C) figures, and those of (R, L, 1)."""

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


def parts_of(model: Model, device: Device, engine: Engine, layout: Layout) -> Parts:
    """Coefficients of one deployment; unbatched."""
    none = decode_load(model, jnp.zeros(()), jnp.zeros(()))
    of = (model, device, engine, layout)
    return Parts(
        gemm=gemm_parts(*of),
        expert=expert_parts(*of),
        launches=launch_parts(model, engine),
        sequence=_unit(*of, replace(none, n_sequences=jnp.ones(()))),
        peak=highest_peak(model, device),
    )


def _unit(model: Model, device: Device, engine: Engine, layout: Layout, load: Load) -> Array:
    return jnp.stack([jnp.stack(four) for four in attention_parts(model, device, engine, layout, load)], axis=1)


def lengths_of(model: Model, device: Device, engine: Engine, layout: Layout, load: Workload) -> Lengths:
    """Coefficients of one deployment at one length; unbatched."""
    of, one, none = (model, device, engine, layout), jnp.ones(()), jnp.zeros(())
    whole = prefill_load(model, load.prompt_tokens, none, one)
    idle = decode_load(model, none, none)
    reads = {"prefill_local_entries": idle.local_entries, "prefill_global_entries": idle.global_entries}
    read = {name: getattr(whole, name) for name in reads}
    mem = memory(*of, load)
    return Lengths(
        decode=_unit(*of, decode_load(model, one, mean_context(load))),
        prompt=_unit(*of, replace(whole, n_sequences=none, **reads)),
        reads=_unit(*of, replace(idle, **read)),
        held=sequences_held(model, layout, mem, load, kept_tokens(engine, load)),
        memory=mem,
    )


def grid(
    model: Model, device: Device, engine: Engine, layout: Layout, lengths: Workload, concurrency: Array
) -> Cells:
    """model, device, engine, layout: (R, ...); lengths: (L,), concurrency left out of account; concurrency: (C,)."""
    rows = (model, device, engine, layout)
    parts = jax.vmap(parts_of)(*rows)
    at_length = jax.vmap(jax.vmap(lengths_of, (None, None, None, None, 0)), (0, 0, 0, 0, None))(*rows, lengths)
    model, device, engine, layout, parts = jax.tree.map(lambda a: a[:, None, None], (*rows, parts))
    at_length = jax.tree.map(lambda a: a[:, :, None], at_length)
    load = replace(jax.tree.map(lambda a: a[:, None], lengths), concurrency=concurrency)
    step = _Step(model, device, engine, layout, parts, at_length, load.prompt_tokens)
    return step.cells(load)


class _Step:
    """Steps of all cells."""

    def __init__(
        self, model: Model, device: Device, engine: Engine, layout: Layout, parts: Parts, at: Lengths, prompt: Array
    ) -> None:
        self.model, self.device, self.engine, self.layout = model, device, engine, layout
        self.parts, self.at, self.prompt = parts, at, prompt

    def cells(self, load: Workload) -> Cells:
        device, engine, layout = self.device, self.engine, self.layout
        running = running_sequences(engine, layout, load, self.at.held)
        chunk, share = mixing(engine, layout, running, load.prompt_tokens, load.output_tokens)
        part = 1.0 / prompt_chunks(engine, self.prompt)
        alone = prompts(part)
        ranks = busy_ranks(layout, running)
        wave = jax.tree.map(lambda amount: amount * ranks, alone)
        mixed = replace(prompts(chunk / self.prompt), n_decode=running)
        tokens = full_tokens(engine, layout, load, running)
        filled = replace(prompts(tokens / self.prompt), n_decode=0.5 * engine.mixes_prefill * (running - 1.0))
        decode_s, decode_bytes, decode_flops = self.seconds(Amounts(running, 0.0, 0.0, 0.0), eager=False)
        alone_s, _, prefill_flops = self.seconds(alone, eager=True)
        later = [self.seconds(amounts, eager=True)[0] for amounts in (wave, mixed, filled)]
        loop = closed_loop(engine, layout, load, running, chunk, share, decode_s, alone_s, *later)
        work = Work(sum(decode_bytes), sum(decode_flops), prefill_flops[0] + prefill_flops[1] / layout.dp)
        mbu, mfu = utilization(device, engine, layout, load, running, work, self.parts.peak, loop.rate_per_s)
        mbu, mfu = mbu * loop.busy_frac, mfu * loop.busy_frac
        count = n_devices(layout)
        return Cells(
            memory=self.at.memory,
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

    def seconds(self, amounts: Amounts, eager: bool) -> tuple[Array, tuple[Array, Array], tuple[Array, Array]]:
        """(seconds, bytes, FLOPs) of a step; the latter two of the routed experts, and of all else on a rank."""
        engine, layout = self.engine, self.layout
        n_sequences = amounts.n_decode + amounts.n_behind
        stages = micro_batches(engine, layout, n_sequences)
        of_stage = 1.0 / stages
        of_rank = of_stage / jnp.clip(n_sequences * of_stage, 1.0, layout.dp)
        tokens = amounts.n_decode + amounts.n_prompts * self.prompt
        rows, logits = tokens * of_rank, (amounts.n_decode + amounts.n_prompts) * of_rank
        dense_s, dense_bytes, dense_flops = self._gemms(rows, logits)
        expert_s, expert_bytes, expert_flops = self._experts(tokens * of_stage)
        cached_s, cached_bytes, cached_flops = self._cached(amounts, of_rank)
        communication, _ = communication_s(self.model, self.device, engine, layout, rows)
        busy = dense_s + expert_s + cached_s + communication
        alone = True if eager else amounts.n_decode * of_rank * layout.pp > engine.graph_tokens
        scheduler = engine.step_s + engine.sequence_s * n_sequences / jnp.clip(n_sequences, 1.0, layout.dp)
        total = busy + launch_s(self.parts.launches, alone, busy) + scheduler
        return total, (expert_bytes, dense_bytes + cached_bytes), (expert_flops, dense_flops + cached_flops)

    def _gemms(self, rows: Array, logits: Array) -> tuple[Array, Array, Array]:
        gemm, total, flops = self.parts.gemm, 0.0, 0.0
        for group in range(len(GEMM_GROUPS)):
            here, own = jax.tree.map(lambda a, i=group: a[..., i], gemm), logits if group == HEAD else rows
            total = total + self._overlapped(here, 1.0, own)
            flops = flops + own * here.flops_per_row
        return total, jnp.sum(gemm.bytes, axis=-1), flops

    def _experts(self, tokens: Array) -> tuple[Array, Array, Array]:
        on_rank, rows = experts_of_step(self.model, self.engine, self.layout, tokens)
        part = self.parts.expert
        return self._overlapped(part, on_rank, rows), on_rank * part.bytes, rows * part.flops_per_row

    def _overlapped(self, part: LinearParts, weights: Array | float, rows: Array) -> Array:
        memory = weights * part.memory_s + rows * part.memory_s_per_row
        compute = weights * part.compute_s + rows * part.compute_s_per_row
        return smooth_max(memory, compute, self.engine.sharpness)

    def _cached(self, amounts: Amounts, of_rank: Array) -> tuple[Array, Array, Array]:
        n = jax.tree.map(lambda amount: amount * of_rank, amounts)
        terms = (n.n_decode, self.at.decode), (n.n_prompts, self.at.prompt), (n.n_reads, self.at.reads)
        terms = (*terms, (n.n_behind, self.parts.sequence))
        amount = lambda kind, i: sum(many * unit[..., kind, i] for many, unit in terms)  # noqa: E731
        whole = lambda kind: sum(many * jnp.sum(unit[..., kind, :], axis=-1) for many, unit in terms)  # noqa: E731
        seconds = sum(
            smooth_max(amount(MEMORY_S, i), amount(COMPUTE_S, i), self.engine.sharpness) for i in range(N_CACHED)
        )
        return seconds, whole(BYTES), whole(FLOPS)


def prompts(n: Array) -> Amounts:
    """A step of n prompts from their first token, as `kernels.work.prefill_load` counts them."""
    return Amounts(0.0, n, jnp.maximum(n, 1.0), jnp.maximum(n, 0.5 * (1.0 + n)))
