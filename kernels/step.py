"""One engine step: decode and prefill tokens in, seconds with their breakdown out."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from kernels import collectives
from kernels.experts import experts_of_step, routing
from kernels.roofline import divide, smooth_max
from kernels.types import (
    COMMUNICATION,
    GEMM_GROUPS,
    HEAD,
    ROUTED,
    Device,
    Engine,
    Layout,
    Load,
    Model,
    StepTime,
    pytree,
)
from kernels.work import (
    ACTIVATION_BYTES,
    activations,
    attention_flops,
    attention_scores,
    divide_load,
    kv_bytes_read,
    state_work,
)


def micro_batches(engine: Engine, layout: Layout, n_sequences: Array) -> Array:
    """Micro-batches in flight in a pipeline: one a stage where the engine pipelines and has enough sequences."""
    return jnp.where(engine.pipelines > 0, up_to(layout.pp, n_sequences / layout.dp), 1.0)


def busy_ranks(layout: Layout, n_sequences: Array) -> Array | float:
    """Attention-DP ranks that hold a sequence."""
    return up_to(layout.dp, n_sequences)


def up_to(ways: Array | float, n: Array) -> Array | float:
    """n, from 1 to `ways`; these are the number 1 where a whole grid has no more."""
    return 1.0 if isinstance(ways, float) and ways == 1.0 else jnp.clip(n, 1.0, ways)


def kv_shard(heads: Array, tp: Array) -> Array:
    """Share of a cache that one TP rank holds: whole heads, replicated when there are more ranks than heads."""
    return jnp.ceil(heads / tp) / heads


def expert_ranks(layout: Layout) -> tuple[Array, Array]:
    """(EP ways, TP ways inside an expert): together they are the tp·dp ranks of a stage."""
    return layout.ep, layout.tp * layout.dp / layout.ep


def step_time(model: Model, device: Device, engine: Engine, layout: Layout, load: Load) -> StepTime:
    """Seconds of one step of a replica, as a sum over operations of smooth maxima of memory and compute time.

    Each token passes all layers, so pipeline stages add up; a stage works on one micro-batch at a time. A sequence
    belongs to one attention-DP rank; the slowest rank sets the time.
    Launches, scheduler and collectives are added: they do not overlap with the GEMMs they wait for.
    """
    stage = divide_load(load, micro_batches(engine, layout, load.n_sequences))
    rank = divide_load(stage, busy_ranks(layout, stage.n_sequences))
    tokens = rank.n_decode_tokens + rank.n_prefill_tokens
    parts = [
        _gemms(model, device, engine, layout, rank, tokens),
        _experts(model, device, engine, layout, stage),
        *attention_parts(model, device, engine, layout, rank),
    ]
    n_bytes, flops, memory, compute = (jnp.concatenate([jnp.atleast_1d(p[i]) for p in parts]) for i in range(4))
    kept = _kept(layout)
    seconds = smooth_max(memory, compute, engine.sharpness) * kept
    communication, sent = communication_s(model, device, engine, layout, tokens)
    host_s, host_bytes, host_flops = _host(model, device, engine, layout, stage, n_bytes, flops)
    busy = jnp.sum(seconds) + communication + host_s
    extra = jnp.stack(
        [
            communication,
            host_s,
            _launches(model, engine, layout, rank, busy),
            scheduler_s(engine, layout, load.n_sequences),
        ]
    )
    zero = jnp.zeros_like(communication)
    tail_bytes = jnp.stack([sent, host_bytes, zero, zero])
    seconds = jnp.concatenate([seconds, extra])
    return StepTime(
        seconds=seconds,
        bytes=jnp.concatenate([n_bytes * kept, tail_bytes]),
        flops=jnp.concatenate([flops * kept, jnp.stack([zero, host_flops, zero, zero])]),
        memory_s=jnp.concatenate([memory, jnp.zeros_like(extra)]),
        compute_s=jnp.concatenate([compute, jnp.zeros_like(extra)]),
        total_s=jnp.sum(seconds),
    )


def _kept(layout: Layout) -> Array:
    """(O',) share of each operation before communication that stays on the device."""
    experts = jnp.arange(COMMUNICATION) == ROUTED
    return (1.0 - layout.host_layer_frac) * (1.0 - layout.host_expert_frac * experts)


@pytree
class LinearParts:
    """Bytes, FLOPs and seconds of weights (`*_s`, once a step) and of each row of tokens that they multiply."""

    bytes: Array
    flops_per_row: Array
    memory_s: Array
    memory_s_per_row: Array
    compute_s: Array  # to unpack the weights
    compute_s_per_row: Array


def linear_s(part: LinearParts, weights: Array | float, rows: Array) -> tuple[Array, Array]:
    """(memory, compute) seconds of so many weights and rows."""
    memory_s = weights * part.memory_s + rows * part.memory_s_per_row
    return memory_s, weights * part.compute_s + rows * part.compute_s_per_row


def gemm_parts(model: Model, device: Device, engine: Engine, layout: Layout) -> LinearParts:
    """(G,) of the dense groups on one rank. Memory seconds include what the rows move, which is no useful byte."""
    share = (1.0 - model.gemm_replicated_frac) / layout.tp + model.gemm_replicated_frac
    params, n_bytes = model.gemm_params * share, model.gemm_bytes * share
    kernel = model.gemm_kernel
    bandwidth = device.bandwidth_bytes_per_s * engine.weight_bw_frac[kernel]
    rate = device.peak_flops_per_s[kernel] * engine.gemm_compute_frac[kernel]
    moved = engine.activation_passes * activations(1.0, model.gemm_launches, params, model)
    return LinearParts(
        bytes=n_bytes,
        flops_per_row=2.0 * params,
        memory_s=divide(n_bytes, bandwidth),
        memory_s_per_row=divide(moved, bandwidth),
        compute_s=divide(params * engine.unpack_flops[kernel], device.vector_flops_per_s),
        compute_s_per_row=divide(2.0 * params, rate),
    )


def _gemms(model: Model, device: Device, engine: Engine, layout: Layout, rank: Load, tokens: Array):
    """(G,) bytes, FLOPs, memory and compute seconds of the dense groups on one rank."""
    rows = jnp.where(jnp.arange(len(GEMM_GROUPS)) == HEAD, rank.n_logit_tokens, tokens)
    part = gemm_parts(model, device, engine, layout)
    return part.bytes, rows * part.flops_per_row, *linear_s(part, 1.0, rows)


def expert_parts(model: Model, device: Device, engine: Engine, layout: Layout) -> LinearParts:
    """Of each routed expert that the fullest rank reads in all MoE layers (`bytes`, `*_s`), and of each of its rows."""
    _, within = expert_ranks(layout)
    layers, kernel, params = model.n_moe_layers, model.expert_kernel, model.expert_params / within
    bandwidth = device.bandwidth_bytes_per_s * engine.expert_bw_frac[kernel]
    rate = device.peak_flops_per_s[kernel] * engine.expert_compute_frac[kernel]
    moved = engine.expert_passes * activations(1.0, 2.0, params, model)
    n_bytes = layers * model.expert_bytes / within
    return LinearParts(
        bytes=n_bytes,
        flops_per_row=2.0 * layers * params,
        memory_s=divide(n_bytes, bandwidth),
        memory_s_per_row=divide(layers * moved, bandwidth),
        compute_s=divide(layers * params * engine.unpack_flops[kernel], device.vector_flops_per_s),
        compute_s_per_row=divide(2.0 * layers * params, rate),
    )


def _experts(model: Model, device: Device, engine: Engine, layout: Layout, stage: Load):
    """Bytes, FLOPs, memory and compute seconds of the routed experts on the fullest rank."""
    on_rank, rows = experts_of_step(routing(model, engine, layout), stage.n_decode_tokens + stage.n_prefill_tokens)
    part = expert_parts(model, device, engine, layout)
    return on_rank * part.bytes, rows * part.flops_per_row, *linear_s(part, on_rank, rows)


def attention_parts(
    model: Model, device: Device, engine: Engine, layout: Layout, rank: Load
) -> tuple[tuple[Array, Array, Array, Array], ...]:
    """The same four for attention, indexer and recurrent state on one rank; linear in the load."""
    reached = jnp.where(model.narrow_kv > 0, engine.narrow_kv_bw_frac, engine.kv_bw_frac)
    bandwidth = device.bandwidth_bytes_per_s * reached
    heads = jnp.maximum(
        kv_shard(model.attn_heads, layout.tp), jnp.minimum(model.attn_min_heads / model.attn_heads, 1.0)
    )
    cache, index_bytes = kv_bytes_read(model, rank, kv_shard(model.attn_kv_heads, layout.tp))
    cache = cache + engine.score_bytes * attention_scores(model, rank, heads)
    decode, prefill, index_flops = attention_flops(model, rank, heads)
    peak = device.attention_flops_per_s
    compute = divide(decode, peak * engine.attention_decode_frac) + divide(
        prefill, peak * engine.attention_prefill_frac
    )
    state_bytes, state_flops = state_work(model, rank, kv_shard(model.state_heads, layout.tp))
    index_rate, state_rate = peak * engine.attention_prefill_frac, peak * engine.state_compute_frac
    state_bandwidth = device.bandwidth_bytes_per_s * engine.state_bw_frac
    return (
        (cache, decode + prefill, divide(cache, bandwidth), compute),
        (index_bytes, index_flops, divide(index_bytes, bandwidth), divide(index_flops, index_rate)),
        (state_bytes, state_flops, divide(state_bytes, state_bandwidth), divide(state_flops, state_rate)),
    )


def communication_s(model: Model, device: Device, engine: Engine, layout: Layout, tokens: Array) -> tuple[Array, Array]:
    """Seconds and bytes sent: an all-reduce a block over TP, all-to-all of dispatch and combine with attention-DP
    (in place of the MoE's all-reduce), and hops between stages, as many across domains as there are borders.
    """
    message = tokens * model.hidden_size * ACTIVATION_BYTES
    n_reduces = model.n_blocks - jnp.where(layout.dp > 1, model.n_moe_layers, 0.0)
    reduce_s = n_reduces * collectives.all_reduce(message, layout.tp, device, engine)
    ranks = layout.tp * layout.dp
    swap = collectives.all_to_all(message, model.n_experts_per_token, ranks, device, engine)
    spread = jnp.where(layout.dp > 1, 2.0 * model.n_moe_layers * swap, 0.0)
    hops = layout.pp - 1.0
    far = jnp.clip(jnp.ceil(ranks * layout.pp / device.domain_devices) - 1.0, 0.0, hops)
    near_s, far_s = collectives.point_to_point(message, device, engine)
    sent = jnp.where(layout.tp > 1, n_reduces * message, 0.0) + hops * message
    return reduce_s + spread + (hops - far) * near_s + far * jnp.where(far > 0, far_s, 0.0), sent


def _host(model: Model, device: Device, engine: Engine, layout: Layout, stage: Load, n_bytes: Array, flops: Array):
    """Seconds, bytes and FLOPs of what host memory holds: computed there, or streamed to the device if sooner."""
    kept = _kept(layout)
    away_bytes = jnp.sum(n_bytes * (1.0 - kept))
    away_flops = jnp.sum(flops * (1.0 - kept))
    there = smooth_max(
        divide(away_bytes, device.host_bandwidth_bytes_per_s * engine.host_bw_frac),
        divide(away_flops, device.host_flops_per_s),
        engine.sharpness,
    )
    rate = device.peak_flops_per_s[model.gemm_kernel[0]] * engine.gemm_compute_frac[model.gemm_kernel[0]]
    streamed = divide(away_bytes, device.pcie_bytes_per_s * engine.link_frac) + divide(away_flops, rate)
    return jnp.where(away_bytes > 0, jnp.minimum(there, streamed), 0.0), away_bytes, away_flops


@pytree
class LaunchParts:
    """Fixed seconds of a step's kernels: replayed from a graph, one after the other, and of the launches alone."""

    graph_s: Array
    apart_s: Array
    eager_s: Array


def launch_parts(model: Model, engine: Engine) -> LaunchParts:
    """Fixed seconds of all kernels: GEMMs, experts, attention, the rest by layer: a mixer and a feed-forward block."""
    fixed = (
        jnp.sum(model.gemm_launches * engine.gemm_launch_s[model.gemm_kernel])
        + jnp.sum(model.attn_layers) * engine.attention_launch_s
        + 0.5 * model.n_blocks * engine.layer_s
        + model.n_moe_layers * (engine.moe_layer_s + engine.expert_launch_s[model.expert_kernel])
        + model.n_mla_layers * engine.mla_layer_s
        + model.n_linear_layers * engine.linear_layer_s
        + model.n_indexer_layers * engine.indexer_layer_s
    )
    eager_s = (
        0.5 * model.n_blocks * engine.eager_layer_s
        + model.n_moe_layers * engine.eager_moe_layer_s
        + model.n_mla_layers * engine.eager_mla_layer_s
        + model.n_linear_layers * engine.eager_linear_layer_s
    )
    return LaunchParts(fixed, fixed + 0.5 * model.n_blocks * engine.ungraphed_layer_s, eager_s)


def launch_s(parts: LaunchParts, eager: Array, busy_s: Array) -> Array:
    """Seconds that launches add to `busy_s` of work.

    Decode replays a captured graph where the engine has one of that size (llama.cpp: for one token on one device). Any
    other step launches its kernels one by one: with gaps between them, and hidden behind long kernels, (t² + e²)^½ of
    the step t without and the launches e alone.
    """
    step, alone = busy_s + parts.apart_s, parts.eager_s
    some = jnp.where(step > 0, step, 1.0)
    one_by_one = parts.apart_s + alone * alone / (jnp.sqrt(some * some + alone * alone) + some)
    return jnp.where(eager, one_by_one, parts.graph_s)


def _launches(model: Model, engine: Engine, layout: Layout, rank: Load, busy_s: Array) -> Array:
    """Fixed seconds of all kernels of a step; none where nothing runs."""
    idle = rank.n_decode_tokens + rank.n_prefill_tokens <= 0
    eager = (rank.n_prefill_tokens > 0) | (rank.n_decode_tokens * layout.pp > engine.graph_tokens)
    return jnp.where(idle, 0.0, launch_s(launch_parts(model, engine), eager, jnp.where(idle, 1.0, busy_s)))


def scheduler_s(engine: Engine, layout: Layout, n_sequences: Array) -> Array:
    """Fixed seconds of a step, and of each sequence of a rank in it: scheduling, sampling, detokenization."""
    return engine.step_s + engine.sequence_s * n_sequences / busy_ranks(layout, n_sequences)


def bound(step: StepTime) -> Array:
    """Index of the operation that takes longest, and whether its memory time exceeds its compute time: (2,) int32."""
    longest = jnp.argmax(step.seconds)
    by_memory = (step.memory_s >= step.compute_s)[longest] | (longest >= COMMUNICATION)
    return jnp.stack([longest, by_memory.astype(longest.dtype)])
